"""Holding a deployment for the time of a run: its lease, also taken over from an engine that died.

A lease that nobody renews expires, but only after a while. On the machine where the engine was, its death can be seen
at once: every engine keeps a file of its run locked, and the kernel unlocks the files of a dead process.
"""

from __future__ import annotations

import fcntl
import os
import secrets as randomness
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from skyspan.app.contexts import make_private
from skyspan.app.session import Session
from skyspan.contracts.store import Lease, RunRecord
from skyspan.engine.faults import Fault
from skyspan.model.address import DeploymentAddress
from skyspan.model.error import RefusedError, StoreError, StoreUnavailableError
from skyspan.model.lifecycle import RunStatus, Verb

_ID_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
_ID_LENGTH = 10
_TRIES = 5
_PAUSE_S = 0.01


def new_run_id() -> str:
    """A name for a run that no other has."""
    return "".join(randomness.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH))


@asynccontextmanager
async def held(
    session: Session, address: DeploymentAddress, verb: Verb, run_id: str, reached: Callable[[str], None]
) -> AsyncIterator[Lease]:
    """The deployment's lease for the time of the block, for a run; from a dead engine it is taken over at once.

    Raises RefusedError while another engine holds it."""
    with _locked(_sign(session, run_id)) as sign:
        reached(Fault.LEASE_BEFORE)
        try:
            lease = await _acquired(session, address, verb, run_id, inherited=sign.inherited)
        except BaseException:
            if not sign.inherited:
                sign.remove()
            raise
        reached(Fault.LEASE_AFTER)
        try:
            yield lease
        finally:
            reached(Fault.RELEASE_BEFORE)
            # Where the lease cannot be given up the file stays, and tells the next one that nobody is there.
            with suppress(StoreError):
                await session.store.release(lease)
                sign.remove()
            reached(Fault.RELEASE_AFTER)


async def live_holder(session: Session, address: DeploymentAddress) -> Lease | None:
    """Who holds the deployment and may still be at work."""
    holder = await session.store.holder(address)
    if holder is None or holder.expires_at < session.clock.now() or _is_dead(_sign(session, holder.run_id)):
        return None
    return holder


async def interrupted_run(session: Session, address: DeploymentAddress) -> RunRecord | None:
    """The deployment's newest run that may change things, if its engine is gone and it has not ended."""
    runs = await session.store.runs(address)
    run = next((run for run in runs if run.verb.writes), None)
    if run is None or run.status is not RunStatus.RUNNING:
        return None
    holder = await live_holder(session, address)
    return None if holder is not None and holder.run_id == run.id else run


def _sign(session: Session, run_id: str) -> Path:
    return session.settings.home / "running" / run_id


class _Sign:
    """The file that an engine keeps locked while it is at work. `ours` is one that we could lock, `inherited` one of
    those that was there before."""

    def __init__(self, path: Path, *, ours: bool, inherited: bool) -> None:
        self._path, self.ours, self.inherited = path, ours, inherited

    def remove(self) -> None:
        """The engine's work is done. One that belongs to another engine stays."""
        if self.ours:
            self._path.unlink(missing_ok=True)


@contextmanager
def _locked(path: Path) -> Iterator[_Sign]:
    """The file at `path`, locked as long as this process lives and is in the block.

    An engine that was stopped until its lease ran out holds the lock still: then its file speaks for both."""
    make_private(path.parent)
    known = path.exists()
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreUnavailableError(
            f"cannot write {path}: {error.strerror}",
            hint="check the disk and the permissions of the home, or name another one with --home",
        ) from error
    try:
        ours = _lock(descriptor, tries=_TRIES)
        yield _Sign(path, ours=ours, inherited=ours and known)
    finally:
        os.close(descriptor)


async def _acquired(session: Session, address: DeploymentAddress, verb: Verb, run_id: str, *, inherited: bool) -> Lease:
    now = session.clock.now()
    wanted = Lease(address, session.person, 0, now + session.settings.lease_s, run_id, verb)
    try:
        return await session.store.acquire(wanted, now)
    except RefusedError:
        holder = await session.store.holder(address)
        if holder is None:
            raise
        same = holder.run_id == run_id
        # Of the same run we hold the file ourselves: whoever left it is not there any more.
        if not (inherited if same else _is_dead(_sign(session, holder.run_id))):
            raise
    # Of two that come to this point one is told that the other holds it: a lease is given up by its epoch.
    await session.store.release(holder)
    if not same:
        _sign(session, holder.run_id).unlink(missing_ok=True)
    return await session.store.acquire(wanted, session.clock.now())


def _is_dead(sign: Path) -> bool:
    """Whether the engine that held this file is gone. Of one on another machine, or with another home, there is no
    file here: nothing is known of it."""
    try:
        descriptor = os.open(sign, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return _lock(descriptor, tries=1)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, tries: int) -> bool:
    for _ in range(tries):
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        # Somebody may just be looking whether the file is locked.
        time.sleep(_PAUSE_S)
    return False
