"""Use cases around the state that a terraform stage keeps; the writing ones hold the deployment's lease meanwhile."""

from __future__ import annotations

import secrets as randomness
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from skyspan.app import queries
from skyspan.app.session import Session
from skyspan.contracts.context import KeptWriter
from skyspan.contracts.store import Lease, StageRecord
from skyspan.model.error import NotFoundError, UsageError
from skyspan.model.lifecycle import Verb
from skyspan.providers.terraform import by_hand
from skyspan.providers.terraform.provider import KEPT_KEEPER
from skyspan.providers.terraform.state import Keeper, State

Document = dict[str, Any]

_LEASE_S = 60.0


async def list_resources(session: Session, name: str, stage: str) -> Document:
    """What the stage's state holds, and what an interrupted apply left in doubt."""
    kept = await _kept(session, await _stage(session, name, stage), 0)
    state = await by_hand.read(kept)
    resources = [{"address": item.address, "type": item.type, "tainted": item.tainted} for item in state.instances]
    return {**_head(name, stage, state), "resources": resources, "in_doubt": list(await by_hand.doubts(kept))}


async def pull(session: Session, name: str, stage: str, version: str | None) -> bytes:
    """The state itself, secrets in clear."""
    return (await by_hand.read(await _kept(session, await _stage(session, name, stage), 0), version)).data


async def history(session: Session, name: str, stage: str) -> Document:
    """Earlier states and broken locks, oldest first."""
    kept = await _kept(session, await _stage(session, name, stage), 0)
    return {"deployment": name, "stage": stage, "history": await by_hand.history(kept)}


async def push(session: Session, name: str, stage: str, data: bytes, *, force: bool) -> Document:
    """Put another state in place."""
    async with _writing(session, name, stage) as (kept, epoch):
        return _head(name, stage, await by_hand.push(kept, data, session.clock, epoch, force=force))


async def rollback(session: Session, name: str, stage: str, version: str) -> Document:
    """Let an earlier state stand again."""
    async with _writing(session, name, stage) as (kept, epoch):
        return _head(name, stage, await by_hand.rollback(kept, version, session.clock, epoch))


async def settle(session: Session, name: str, stage: str, address: str, import_id: str | None) -> Document:
    """Say what a resource in doubt is."""
    async with _writing(session, name, stage) as (kept, _):
        await by_hand.settle(kept, address, import_id)
    return {"deployment": name, "stage": stage, "address": address, "import_id": import_id}


async def unlock(session: Session, name: str, stage: str) -> Document:
    """Free the state of a command that a person knows has ended."""
    async with _writing(session, name, stage) as (kept, epoch):
        lock = await by_hand.unlock(kept, session.clock, epoch)
    return {"deployment": name, "stage": stage, "unlocked": lock or None}


def _head(name: str, stage: str, state: State) -> Document:
    return {"deployment": name, "stage": stage, "serial": state.serial, "lineage": state.lineage}


async def _stage(session: Session, name: str, stage: str) -> StageRecord:
    record = await queries.find_deployment(session, name)
    records = await session.store.stage_records(record.address)
    found = next((item for item in records if item.address.name == stage), None)
    if found is None:
        known = ", ".join(item.address.name for item in records) or "none"
        raise NotFoundError(f"{name} has no stage {stage!r}", hint=f"its stages: {known}")
    if found.uses != "terraform":
        raise UsageError(f"stage {stage} uses {found.uses}, which keeps no state of this kind")
    return found


async def _kept(session: Session, record: StageRecord, epoch: int) -> KeptWriter:
    kept = session.store.kept(record.address, epoch)
    keeper = await kept.get(KEPT_KEEPER)
    if keeper is not None and keeper.decode() == Keeper.BACKEND and epoch == 0:
        msg = f"the state of {record.address.name} is in the backend that its configuration declares"
        raise UsageError(msg, hint="look there with `tofu state` or `terraform state`")
    return kept


@asynccontextmanager
async def _writing(session: Session, name: str, stage: str) -> AsyncIterator[tuple[KeptWriter, int]]:
    record = await _stage(session, name, stage)
    now = session.clock.now()
    wanted = Lease(
        deployment=record.address.deployment,
        owner=f"{session.settings.person}@{session.settings.machine}",
        epoch=0,
        expires_at=now + _LEASE_S,
        run_id=f"state-{randomness.token_hex(5)}",
        verb=Verb.UP,
    )
    lease = await session.store.acquire(wanted, now)
    try:
        yield await _kept(session, record, lease.epoch), lease.epoch
    finally:
        await session.store.release(lease)
