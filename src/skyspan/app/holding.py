"""Holding a deployment for the time of a run: its lease, also taken over from an engine that died.

A lease that nobody renews expires, but only after a while; see `alive` for what is seen at once.
"""

from __future__ import annotations

import secrets as randomness
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from skyspan.app.alive import is_dead, locked, sign_of
from skyspan.app.audit import remember
from skyspan.app.session import Session
from skyspan.contracts.store import Lease, LogLine, LogStore
from skyspan.engine.faults import Fault
from skyspan.model.address import DeploymentAddress
from skyspan.model.error import FencedError, RefusedError, StoreError
from skyspan.model.lifecycle import Verb

_ID_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
_ID_LENGTH = 10


@dataclass(frozen=True, slots=True)
class LeasedLog:
    """A run's log, written under its lease: what an engine says that was taken over from is nobody's any more."""

    store: LogStore
    lease: Lease

    async def append_log(self, lines: Sequence[LogLine]) -> None:
        """Add lines; raises FencedError when the lease was taken over."""
        await self.store.append_log(lines, self.lease)


def new_run_id() -> str:
    """A name for a run that no other has."""
    return "".join(randomness.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH))


@asynccontextmanager
async def held(session: Session, address: DeploymentAddress, verb: Verb, run_id: str) -> AsyncIterator[Lease]:
    """The deployment's lease for the time of the block, for a run; from a dead engine it is taken over at once.

    Raises RefusedError while another engine holds it."""
    reached = session.reached
    with locked(sign_of(session, run_id)) as sign:
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
        except FencedError as error:
            # Not every refusal comes from the store, which remembers its own: the keeper refuses commands as well.
            with suppress(StoreError):
                detail = f"run {run_id} under epoch {lease.epoch}: {error.detail or error.summary}"
                await remember(session, "stale engine stopped", address.name, detail)
            raise
        finally:
            reached(Fault.RELEASE_BEFORE)
            # Where the lease cannot be given up the file stays, and tells the next one that nobody is there.
            with suppress(StoreError):
                await session.store.release(lease)
                sign.remove()
            reached(Fault.RELEASE_AFTER)


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
        if not (inherited if same else is_dead(sign_of(session, holder.run_id))):
            raise
    # Of two that come to this point one is told that the other holds it: a lease is given up by its epoch.
    await session.store.release(holder)
    if not same:
        sign_of(session, holder.run_id).unlink(missing_ok=True)
    return await session.store.acquire(wanted, session.clock.now())
