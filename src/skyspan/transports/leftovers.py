"""Owns finding what a process of ours that died had started on this machine and what still runs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Leftover:
    """A process that still runs. `name` is the program's, without its arguments."""

    pid: int
    name: str


def leftovers(variable: str, value: str, proc: Path = Path("/proc")) -> tuple[Leftover, ...]:
    """The processes that have `variable` with that `value` in the environment they were started with (proc(5)).

    Processes of other users cannot be looked at, and are left out.
    """
    mark = f"{variable}={value}".encode()
    found = []
    for folder in proc.iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            # A process that ended and is not reaped yet has an empty environment.
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append(Leftover(int(folder.name), (folder / "comm").read_text(errors="replace").strip()))
        except OSError:
            continue
    return tuple(sorted(found, key=lambda item: item.pid))
