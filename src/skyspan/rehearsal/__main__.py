"""`python -m skyspan.rehearsal WORDS`: an instruction to the world that this is called in.

It imports little: scripts call it often.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skyspan.rehearsal.places import Places


def main(words: list[str]) -> int:
    """Pass the words on and write the answer to standard output; 2 when there is no world or it does not understand."""
    path = Places().socket
    if not words or not path.is_socket():
        said = _usage() if not words else "there is no world here: call it inside `skyspan rehearse exec`"
        os.write(2, f"{said}\n".encode())
        return 2
    answer = instruct(path, words)
    os.write(1, f"{json.dumps(answer)}\n".encode())
    return 2 if "error" in answer else 0


def instruct(path: Path, words: list[str]) -> Mapping[str, Any]:
    """Give an instruction to the world that listens at `path`, and wait for its answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(str(path))
        connection.sendall(json.dumps(words).encode() + b"\n")
        answer: Mapping[str, Any] = json.loads(connection.makefile().readline())
    return answer


def _usage() -> str:
    from skyspan.rehearsal.instructions import USAGE

    return USAGE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
