"""Finds and ends what a command has started and left behind, daemons too.

A group does not hold a process that made itself a session (`setsid`, `daemon(3)`), and a parent's id is forgotten with
the parent. So every command gets a mark in its environment, which all that it starts inherit; and whoever a marked
process started belongs to it as well, should it have cleared its environment. What clears its environment and then
loses its parent is not found any more: only a cgroup would hold it. On Linux, `/proc` tells all this.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

MARK = "SKYSPAN_COMMAND"
"""The environment variable by which what a command started is found."""

_ROUNDS = 5
"""How often it is looked again: what is killed may have started something just before."""


class Descendant(NamedTuple):
    """A process that a command started; `began` (ticks since boot) tells it from a later one with the same id."""

    pid: int
    name: str
    began: int


def new_mark() -> str:
    """A mark that no other command has."""
    return os.urandom(8).hex()


def descendants(mark: str, root: int | None = None) -> tuple[Descendant, ...]:
    """All living processes with that mark, and those below them and below `root`; never this one itself."""
    processes = {pid: process for pid in _pids() if (process := _process(pid)) is not None}
    wanted = f"{MARK}={mark}".encode()
    found = {pid for pid in processes if wanted in _environment(pid)}
    if root is not None:
        found.add(root)
    grown = True
    while grown:
        below = {pid for pid, process in processes.items() if process.parent in found and pid not in found}
        grown = bool(below)
        found |= below
    found -= {os.getpid(), root}
    return tuple(Descendant(pid, processes[pid].name, processes[pid].began) for pid in sorted(found))


def kill_descendants(mark: str, known: Iterable[Descendant] = ()) -> tuple[Descendant, ...]:
    """End all that bear the mark, and those `known` from before, at once, until none is left; gives back who was.

    Look with `descendants` before the command itself is killed: afterwards nobody knows whose children they are."""
    killed: dict[int, Descendant] = {}
    living = tuple(known)
    for _ in range(_ROUNDS):
        for descendant in living:
            if _kill(descendant):
                killed[descendant.pid] = descendant
        living = descendants(mark)
        if not living:
            break
    return tuple(killed.values())


def marked(env: Mapping[str, str], mark: str) -> dict[str, str]:
    """The environment for a command whose descendants are to be found."""
    return {**env, MARK: mark}


def _pids() -> Iterator[int]:
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit():
                yield int(entry.name)


class _Process(NamedTuple):
    name: str
    parent: int
    began: int


def _process(pid: int) -> _Process | None:
    """What the kernel says of it; None when it is over, be it a zombie that waits to be collected."""
    try:
        text = _read(pid, "stat")
    except OSError:
        return None
    # The name is in parentheses and may hold any character.
    name, rest = text[text.index(b"(") + 1 : text.rindex(b")")], text[text.rindex(b")") + 2 :].split()
    return None if rest[0] in (b"Z", b"X") else _Process(name.decode(errors="replace"), int(rest[1]), int(rest[19]))


def _read(pid: int, what: str) -> bytes:
    # Without pathlib: the keeper, which imports this, stays small.
    with open(f"/proc/{pid}/{what}", "rb") as file:  # noqa: PTH123
        return file.read()


def _environment(pid: int) -> frozenset[bytes]:
    try:
        return frozenset(_read(pid, "environ").split(b"\0"))
    except OSError:
        return frozenset()


def _kill(descendant: Descendant) -> bool:
    """Kill it, if it is still there: whether it was."""
    process = _process(descendant.pid)
    if process is None or process.began != descendant.began:
        return False
    try:
        os.kill(descendant.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return True
