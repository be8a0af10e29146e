"""Use cases around the state that a terraform stage keeps; the writing ones hold the deployment's lease meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from skyspan.app import queries
from skyspan.app.audit import remember
from skyspan.app.documents import timestamp
from skyspan.app.holding import held, new_run_id
from skyspan.app.session import Session
from skyspan.contracts.context import KeptWriter
from skyspan.contracts.store import StageRecord
from skyspan.model.error import NotFoundError, UsageError
from skyspan.model.lifecycle import Verb
from skyspan.providers.terraform import by_hand
from skyspan.providers.terraform.endpoint.vault import Held
from skyspan.providers.terraform.holder import Standing, standing
from skyspan.providers.terraform.provider import KEPT_KEEPER
from skyspan.providers.terraform.state import ERRORED, Keeper, State

Document = dict[str, Any]


async def list_resources(session: Session, name: str, stage: str) -> Document:
    """What the stage's state holds, and what an interrupted apply left in doubt."""
    found = await by_hand.overview(await _own(session, await _stage(session, name, stage)))
    resources = [
        {"address": item.address, "type": item.type, "tainted": item.tainted, "deposed": item.deposed}
        for item in found.state.instances
    ]
    return {
        **_head(name, stage, found.state),
        "resources": resources,
        "to_import": [{"address": address, "id": identity} for address, identity in sorted(found.orphans.items())],
        "in_doubt": list(found.doubts),
        "lock": _lock(found.lock),
    }


async def pull(session: Session, name: str, stage: str, version: str | None) -> bytes:
    """The state itself, secrets in clear; that it is shown is remembered first."""
    record = await _stage(session, name, stage)
    kept = _kept(session, record) if version == ERRORED else await _own(session, record)
    state = await by_hand.read(kept, version)
    await remember(session, "state pulled", name, f"{stage}, serial {state.serial}")
    return state.data


async def history(session: Session, name: str, stage: str) -> Document:
    """Earlier states and broken locks, oldest first."""
    kept = _kept(session, await _stage(session, name, stage))
    entries = [{**entry, "at": timestamp(entry["at"])} for entry in await by_hand.history(kept)]
    return {"deployment": name, "stage": stage, "history": entries}


async def push(session: Session, name: str, stage: str, data: bytes, *, force: bool) -> Document:
    """Put another state in place."""
    async with _writing(session, name, stage, own=True) as (kept, epoch):
        state = await by_hand.push(kept, data, session.clock, epoch, force=force)
        await remember(session, "state pushed", name, f"{stage}, serial {state.serial}{', by force' if force else ''}")
    return _head(name, stage, state)


async def rollback(session: Session, name: str, stage: str, version: str) -> Document:
    """Let an earlier state stand again."""
    async with _writing(session, name, stage, own=True) as (kept, epoch):
        state = await by_hand.rollback(kept, version, session.clock, epoch)
        await remember(session, "state rolled back", name, f"{stage}, to {version} as serial {state.serial}")
    return _head(name, stage, state)


async def settle(session: Session, name: str, stage: str, address: str, import_id: str | None) -> Document:
    """Say what a resource in doubt is."""
    async with _writing(session, name, stage) as (kept, _):
        await by_hand.settle(kept, address, import_id)
        await remember(session, "resource settled", name, f"{stage}, {address}: {import_id or 'absent'}")
    return {"deployment": name, "stage": stage, "address": address, "import_id": import_id}


async def unlock(session: Session, name: str, stage: str) -> Document:
    """Free the state of a command that a person knows has ended."""
    async with _writing(session, name, stage) as (kept, epoch):
        lock = await by_hand.unlock(kept, session.clock, epoch)
        await remember(session, "state unlocked", name, f"{stage}, {lock or 'no lock was held'}")
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


def _lock(held: Held | None) -> Document | None:
    if held is None:
        return None
    who = held.holder
    seen = standing(who)
    return {
        "id": held.lock.id,
        "run": who.run or None,
        "attempt": who.number or None,
        "host": who.machine.host,
        "since": timestamp(who.since) if who.since else None,
        "running": None if seen is Standing.UNKNOWN else seen is Standing.ALIVE,
    }


def _kept(session: Session, record: StageRecord, epoch: int = 0) -> KeptWriter:
    return session.store.kept(record.address, epoch)


async def _own(session: Session, record: StageRecord, epoch: int = 0) -> KeptWriter:
    """As `_kept`, where the state is kept by Skyspan. Raises UsageError where it is in another backend."""
    kept = _kept(session, record, epoch)
    keeper = await kept.get(KEPT_KEEPER)
    if keeper is not None and keeper.decode() == Keeper.BACKEND:
        msg = f"the state of {record.address.name} is in the backend that its configuration declares"
        raise UsageError(msg, hint="look there with `tofu state` or `terraform state`")
    return kept


@asynccontextmanager
async def _writing(
    session: Session, name: str, stage: str, *, own: bool = False
) -> AsyncIterator[tuple[KeptWriter, int]]:
    """What the stage keeps, under a lease; `own`: only where the state itself is kept by Skyspan."""
    record = await _stage(session, name, stage)
    async with held(session, record.address.deployment, Verb.UP, f"state-{new_run_id()}") as lease:
        kept = _kept(session, record, lease.epoch)
        yield await _own(session, record, lease.epoch) if own else kept, lease.epoch
