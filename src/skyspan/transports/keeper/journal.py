"""Owns the keeper's journals: one file per run, one JSON object per line, each line written by a single call.

What is written survives the keeper. A command is journalled before it is started, so while the machine runs, what is
not there was not started. A machine that crashes may lose lines: a journal of another boot is never complete.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any


class Journal:
    """What happened to the commands of one run. `complete` means that every command started here is in it."""

    def __init__(self, path: str, boot: str) -> None:
        """Open or make it; `boot` names this boot of the machine."""
        self.path = path
        self._boot = boot
        self.lines = _lines(path)
        self.complete = False
        for line in self.lines:
            if "complete" in line:
                self.complete = bool(line["complete"]) and line.get("boot") == boot
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def begin(self) -> None:
        """A new run begins: from now on everything is in here."""
        if not self.lines:
            self.complete = True
            self.write(boot=self._boot, complete=True)

    def write(self, **line: Any) -> None:
        """Add a line."""
        os.write(self._file, (json.dumps(line) + "\n").encode("ascii"))

    def sync(self) -> None:
        """Make it survive a crash of the machine too."""
        os.fdatasync(self._file)

    def remove(self) -> None:
        """The run is over."""
        os.close(self._file)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)  # noqa: PTH108 - pathlib would double the keeper's start


def _lines(path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    with contextlib.suppress(FileNotFoundError), open(path, encoding="ascii", errors="replace") as file:  # noqa: PTH123
        for text in file:
            # A line that a crash of the machine cut short says nothing.
            with contextlib.suppress(ValueError):
                found.append(json.loads(text))
    return found
