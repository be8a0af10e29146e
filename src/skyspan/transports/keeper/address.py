"""Says where the keeper of a state home is, and which attempt a command belongs to."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from skyspan.contracts.transport import StopLadder
from skyspan.transports.keeper.identity import surroundings

_SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class KeeperPlace:
    """`folder` is in the state home and holds lock, socket and journals; `logs` holds raw output, in memory if that
    can be."""

    folder: Path
    logs: Path


def keeper_place(home: Path) -> KeeperPlace:
    """The keeper of a home, for processes with these namespaces: a rehearsal's commands must never leave its world.

    Raw output may hold secrets, so it is kept off the disk where there is a tmpfs.
    """
    here = hashlib.sha256(repr((os.getuid(), *surroundings())).encode()).hexdigest()[:12]
    folder = home.resolve() / "keeper" / here
    if os.access(_SHARED_MEMORY, os.W_OK | os.X_OK):
        name = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
        return KeeperPlace(folder, _SHARED_MEMORY / f"skyspan-{os.getuid()}-{name}")
    return KeeperPlace(folder, folder / "logs")


@dataclass(frozen=True, slots=True)
class RunKey:
    """Under which run and epoch an engine acts. A fresh run has not been begun by another engine."""

    deployment: str
    run: str
    epoch: int
    fresh: bool = True


@dataclass(frozen=True, slots=True)
class AttemptKey:
    """An attempt of the run."""

    stage: str
    attempt: int


@dataclass(frozen=True, slots=True)
class KeptCommand:
    """A command that a keeper knows of. `unknown` means that nobody can know how it ends or ended: its keeper was
    killed. `over` means that it does not run any more."""

    key: AttemptKey
    number: int
    digest: str
    pid: int
    over: bool
    unknown: bool
    ladder: StopLadder
    mark: str
