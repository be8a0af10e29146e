"""`python -m skyspan.rehearsal WORDS`: an instruction to the world that this is called in."""

from __future__ import annotations

import json
import os
import sys

from skyspan.rehearsal.control import USAGE, instruct
from skyspan.rehearsal.material import Places


def main(words: list[str]) -> int:
    """Pass the words on and write the answer to standard output; 2 when there is no world or it does not understand."""
    socket = Places().socket
    if not words or not socket.is_socket():
        said = USAGE if not words else "there is no world here: call it inside `skyspan rehearse exec`"
        os.write(2, f"{said}\n".encode())
        return 2
    answer = instruct(socket, words)
    os.write(1, f"{json.dumps(answer)}\n".encode())
    return 2 if "error" in answer else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
