"""Holding a deployment for the time of a run: its lease, also taken over from a run whose process died.

A lease that nobody renews expires, but only after a while. On the machine where the run was, its death can be seen at
once: every run keeps a file of its own locked, and the kernel unlocks the files of a dead process.
"""

from __future__ import annotations

import fcntl
import os
import secrets as randomness
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from skyspan.app.contexts import make_private
from skyspan.app.session import Session
from skyspan.contracts.store import Batch, Lease
from skyspan.drivers.local import Pace
from skyspan.model.address import DeploymentAddress
from skyspan.model.error import RefusedError, StoreError, StoreUnavailableError
from skyspan.model.event import Event, RunEnded, StageEnded
from skyspan.model.lifecycle import RunStatus, StageStatus, Verb
from skyspan.transports.leftovers import Leftover, leftovers

RUN_VARIABLE = "SKYSPAN_RUN"
"""Names the run in the environment of everything that it starts."""

_ID_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
_ID_LENGTH = 10


@asynccontextmanager
async def held(session: Session, address: DeploymentAddress, verb: Verb) -> AsyncIterator[Lease]:
    """The deployment's lease for the time of the block, under a new run's id.

    Raises RefusedError while another run holds it, or while something that a dead run started still runs here.
    """
    now = session.clock.now()
    run_id = "".join(randomness.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH))
    wanted = Lease(address, session.person, 0, now + Pace().lease_s, run_id, verb)
    sign = _sign(session, run_id)
    with _locked(sign):
        try:
            lease = await _acquire(session, wanted, now)
        except BaseException:
            sign.unlink(missing_ok=True)
            raise
        try:
            await _tell_the_end_of_the_last(session, lease)
            yield lease
        finally:
            # Where the lease cannot be given up the file stays, and tells the next run that nobody is there.
            with suppress(StoreError):
                await session.store.release(lease)
                sign.unlink(missing_ok=True)


def _sign(session: Session, run_id: str) -> Path:
    return session.settings.home / "running" / run_id


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """A new file at `path`, locked as long as this process lives and is in the block."""
    make_private(path.parent)
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreUnavailableError(
            f"cannot write {path}: {error.strerror}",
            hint="check the disk and the permissions of the home, or name another one with --home",
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


async def _acquire(session: Session, wanted: Lease, now: float) -> Lease:
    try:
        return await session.store.acquire(wanted, now)
    except RefusedError:
        holder = await session.store.holder(wanted.deployment)
        if holder is None or not _is_dead(_sign(session, holder.run_id)):
            raise
    if left := leftovers(RUN_VARIABLE, holder.run_id):
        raise _still_running(holder, left)
    # Of two that come to this point one is told that the other holds it: a lease is given up by its epoch.
    await session.store.release(holder)
    _sign(session, holder.run_id).unlink(missing_ok=True)
    return await session.store.acquire(wanted, now)


def _is_dead(sign: Path) -> bool:
    """Whether the process that held this file is gone. Of a run on another machine, or with another home, there is no
    file here: nothing is known of it."""
    try:
        descriptor = os.open(sign, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _still_running(holder: Lease, left: tuple[Leftover, ...]) -> RefusedError:
    names = ", ".join(f"{item.pid} ({item.name})" for item in left)
    return RefusedError(
        f"run {holder.run_id} ({holder.verb.value}) of {holder.deployment.name} died, but what it had started still "
        f"runs: {names}",
        detail="It must not run twice at the same time.",
        hint=f"let it end by itself, or end it (kill {' '.join(str(item.pid) for item in left)}), and repeat",
    )


async def _tell_the_end_of_the_last(session: Session, lease: Lease) -> None:
    """A run that died could not say so; whoever comes next does, under the lease that keeps it from coming back."""
    known = await session.store.deployment(lease.deployment)
    last = await session.store.run(known.last_run) if known is not None and known.last_run else None
    if last is None or last.status is not RunStatus.RUNNING:
        return
    now = session.clock.now()
    ends: list[Event] = []
    for stage in await session.store.stage_runs(last.id):
        if stage.status is StageStatus.RUNNING:
            ends.append(StageEnded(stage.name, stage.attempt, StageStatus.LOST, "its process died"))
        elif not stage.status.ended:
            ends.append(StageEnded(stage.name, stage.attempt, StageStatus.CANCELLED, "the run died before"))
    ends.append(RunEnded(RunStatus.LOST, "its process died"))
    await session.store.append(last.id, lease, Batch(tuple((now, event) for event in ends)))
