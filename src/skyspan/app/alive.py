"""Which engines are alive, as far as this machine can tell.

Every engine keeps a file of its run locked, and the kernel unlocks the files of a dead process. The file names its
machine, as a home may be copied to another one, where no lock tells anything.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from skyspan.app.folders import make_private
from skyspan.app.session import Session
from skyspan.contracts.store import Lease, RunRecord
from skyspan.model.address import DeploymentAddress
from skyspan.model.error import StoreUnavailableError
from skyspan.model.lifecycle import RunStatus

_TRIES = 5
_PAUSE_S = 0.01
_MACHINE = Path("/etc/machine-id")


async def live_holder(session: Session, address: DeploymentAddress) -> Lease | None:
    """Who holds the deployment and may still be at work."""
    holder = await session.store.holder(address)
    if holder is None or holder.expires_at < session.clock.now() or is_dead(sign_of(session, holder.run_id)):
        return None
    return holder


async def newest_change(session: Session, address: DeploymentAddress) -> RunRecord | None:
    """The deployment's newest run that may change things."""
    return next((run for run in await session.store.runs(address) if run.verb.writes), None)


async def interrupted_run(session: Session, address: DeploymentAddress) -> RunRecord | None:
    """The deployment's newest run that may change things, if its engine is gone and it has not ended."""
    run = await newest_change(session, address)
    if run is None or run.status is not RunStatus.RUNNING:
        return None
    holder = await live_holder(session, address)
    return None if holder is not None and holder.run_id == run.id else run


def sign_of(session: Session, run_id: str) -> Path:
    """The file by which the engine of a run shows that it is alive."""
    return session.settings.home / "running" / run_id


class Sign:
    """The file that an engine keeps locked while it is at work. `ours` is one that we could lock, `inherited` one of
    those that was there before."""

    def __init__(self, path: Path, *, ours: bool, inherited: bool) -> None:
        self._path, self.ours, self.inherited = path, ours, inherited

    def remove(self) -> None:
        """The engine's work is done. One that belongs to another engine stays."""
        if self.ours:
            self._path.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[Sign]:
    """The file at `path`, locked as long as this process lives and is in the block.

    An engine that was stopped until its lease ran out holds the lock still: then its file speaks for both."""
    make_private(path.parent)
    known = path.exists()
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        ours = _lock(descriptor, tries=_TRIES)
        known = known and _is_of_here(descriptor)
        if ours:
            _write(path, descriptor)
        yield Sign(path, ours=ours, inherited=ours and known)
    finally:
        os.close(descriptor)


def is_dead(sign: Path) -> bool:
    """Whether the engine that held this file is gone. Of one on another machine, or with another home, there is no
    file here, or a copy of one: nothing is known of it."""
    try:
        descriptor = os.open(sign, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return _is_of_here(descriptor) and _lock(descriptor, tries=1)
    finally:
        os.close(descriptor)


def _write(path: Path, descriptor: int) -> None:
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, " ".join(_here()).encode(), 0)
    except OSError as error:
        raise _unwritable(path, error) from error


def _is_of_here(descriptor: int) -> bool:
    """Whether the file was written on this machine: since it was started, where containers share it, or before."""
    written = os.pread(descriptor, 200, 0).decode(errors="replace").split()
    return not set(_here()).isdisjoint(written)


def _here() -> tuple[str, ...]:
    """What this machine is told by: this boot of it, and its installation where that has a name."""
    # Looking at deployments that nobody holds should not load what starts processes.
    from skyspan.transports.keeper.identity import boot_id

    with suppress(OSError):
        return boot_id(), _MACHINE.read_text(encoding="ascii").strip()
    return (boot_id(),)


def _unwritable(path: Path, error: OSError) -> StoreUnavailableError:
    return StoreUnavailableError(
        f"cannot write {path}: {error.strerror}",
        hint="check the disk and the permissions of the home, or name another one with --home",
    )


def _lock(descriptor: int, tries: int) -> bool:
    for _ in range(tries):
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        # Somebody may just be looking whether the file is locked.
        time.sleep(_PAUSE_S)
    return False
