"""`python -m skyspan.rehearsal WORDS`: an instruction to the world that this is called in."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from skyspan.rehearsal.control import USAGE, instruct


def main(words: list[str]) -> int:
    """Pass the words on and print the answer; 2 when there is no world or it does not understand."""
    path = os.environ.get("SKYSPAN_REHEARSAL_SOCKET", "")
    if not path or not words:
        print("there is no world here: call it inside `skyspan rehearse exec`" if words else USAGE, file=sys.stderr)
        return 2
    answer = instruct(Path(path), words)
    print(json.dumps(answer))
    return 2 if "error" in answer else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
