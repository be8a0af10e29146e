"""Knows who took a lock, and proves from /proc whether anything of that attempt still runs.

Every command of an attempt carries the attempt's name in its environment, and so does everything it starts; a process
id could have been given to somebody else since, that name cannot.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

ATTEMPT_VARIABLE = "SKYSPAN_ATTEMPT"

_PROC = Path("/proc")


class Standing(StrEnum):
    """Whether something of an attempt still runs."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Machine:
    """Where processes are seen from: host, start of its system, process namespace, user."""

    host: str
    boot: str
    namespace: str
    user: int

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {"host": self.host, "boot": self.boot, "namespace": self.namespace, "user": self.user}

    @classmethod
    def restore(cls, found: Mapping[str, Any]) -> Machine:
        """What `record` told."""
        return cls(str(found["host"]), str(found["boot"]), str(found["namespace"]), int(found["user"]))


@dataclass(frozen=True, slots=True)
class Holder:
    """One attempt: its name, unique for ever, and where its commands run. `dead`: a person has vouched for that.

    For people: `run` and `number` say which attempt of which run it is, `since` when it began, in seconds since the
    epoch; empty and 0 where that is not known.
    """

    attempt: str
    machine: Machine
    dead: bool = False
    run: str = ""
    number: int = 0
    since: float = 0.0

    def __str__(self) -> str:
        who = f"attempt {self.number} of run {self.run}" if self.run else f"attempt {self.attempt}"
        return f"{who} on {self.machine.host}" + (f" since {moment(self.since)}" if self.since else "")

    def record(self) -> dict[str, Any]:
        """As JSON."""
        told = {"run": self.run, "number": self.number, "since": self.since}
        return {"attempt": self.attempt, "machine": self.machine.record(), "dead": self.dead, **told}

    @classmethod
    def restore(cls, found: Mapping[str, Any]) -> Holder:
        """What `record` told."""
        return cls(
            str(found["attempt"]),
            Machine.restore(found["machine"]),
            bool(found.get("dead", False)),
            str(found.get("run", "")),
            int(found.get("number", 0)),
            float(found.get("since", 0.0)),
        )


def moment(at: float) -> str:
    """Seconds since the epoch, for people."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def this_machine(proc: Path = _PROC) -> Machine:
    """The machine we are on; without /proc its boot and namespace stay unknown."""
    boot, namespace = "", ""
    try:
        boot = (proc / "sys/kernel/random/boot_id").read_text().strip()
        namespace = str((proc / "self/ns/pid").readlink())
    except OSError:
        pass
    return Machine(platform.node(), boot, namespace, os.getuid())


def standing(holder: Holder, proc: Path = _PROC) -> Standing:
    """Whether anything of the holder's attempt still runs, as far as it can be known from here."""
    if holder.dead:
        return Standing.DEAD
    here, there = this_machine(proc), holder.machine
    if here.host != there.host or not here.boot or not there.boot:
        return Standing.UNKNOWN
    if here.boot != there.boot:
        return Standing.DEAD  # The machine was started anew since.
    if here.namespace != there.namespace or here.user not in (0, there.user):
        return Standing.UNKNOWN
    return Standing.ALIVE if any(_processes_of(holder.attempt, proc)) else Standing.DEAD


def processes_of(holder: Holder, proc: Path = _PROC) -> tuple[int, ...]:
    """The process ids of everything of that attempt on this machine, lowest first."""
    return tuple(sorted(_processes_of(holder.attempt, proc)))


def _processes_of(attempt: str, proc: Path) -> Iterator[int]:
    wanted = f"{ATTEMPT_VARIABLE}={attempt}".encode()
    for folder in proc.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            environment = (folder / "environ").read_bytes()
        except OSError:
            continue  # Gone meanwhile, or another user's.
        if wanted in environment.split(b"\0"):
            yield int(folder.name)
