"""What a person may do to a stage's kept state: look into it, push another, go back, settle what is in doubt."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from skyspan.contracts.context import Clock, Kept, KeptWriter
from skyspan.model.error import NotFoundError, StageError, StateLockedError
from skyspan.providers.terraform.endpoint.vault import (
    KEPT_STATE,
    Held,
    Vault,
    read_index,
    read_lock,
    replace_state,
    version_name,
)
from skyspan.providers.terraform.holder import Holder, Standing, processes_of, standing, this_machine
from skyspan.providers.terraform.journal import KEPT_JOURNAL, Journal
from skyspan.providers.terraform.rescue import suspects
from skyspan.providers.terraform.state import ERRORED, KEPT_ERRORED, NO_STATE, State, parse_state


@dataclass(frozen=True, slots=True)
class Overview:
    """What stands: the state, the lock on it, and what an interrupted command left beside it.

    `orphans` were made but are not in the state (address to id); of `doubts` nobody knows the end.
    """

    state: State
    lock: Held | None = None
    orphans: Mapping[str, str] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()


async def read(kept: Kept, version: str | None = None) -> State:
    """The state that stands, or an earlier one by its serial. Raises NotFoundError."""
    name = KEPT_STATE if version is None else KEPT_ERRORED if version == ERRORED else _name(version)
    data = await kept.get(name)
    if data is None:
        what = "keeps no state" if version is None else f"keeps no version {version} of its state"
        raise NotFoundError(f"the stage {what}", hint="`skyspan state history` lists the versions")
    return parse_state(data)


async def history(kept: Kept) -> list[dict[str, Any]]:
    """What happened to the state, oldest first."""
    return await read_index(kept)


async def overview(kept: Kept) -> Overview:
    """All that is known. Raises NotFoundError where nothing is."""
    data, journal, lock = await kept.get(KEPT_STATE), Journal.load(await kept.get(KEPT_JOURNAL)), await read_lock(kept)
    state = parse_state(data) if data is not None else NO_STATE
    orphans, doubts = journal.orphans(state.known), journal.doubts(state.known)
    if all(standing(holder) is not Standing.ALIVE for holder in journal.holders):
        doubts = tuple(sorted({*doubts, *suspects(journal, state.known)}))
    if data is None and not (orphans or doubts or lock):
        raise NotFoundError("the stage keeps no state", hint="nothing was applied yet, or it was destroyed")
    return Overview(state, lock, orphans, doubts)


async def push(kept: KeptWriter, data: bytes, clock: Clock, epoch: int, *, force: bool) -> State:
    """Put another state in place. Without `force` it must be a newer one of the same lineage; with it, one that is not
    newer gets a serial of its own, as states never go back. The state that stands already is left. Raises StageError.
    """
    await _free(kept)
    new = parse_state(data)
    before = await kept.get(KEPT_STATE)
    if before == data:
        return new
    if before is not None:
        old = parse_state(before)
        if not force:
            _refuse_older(new, old)
        if new.serial <= old.serial:
            new = _renumbered(new, old.serial + 1)
    await replace_state(kept, new.data, clock.now(), epoch, "by another that was pushed by hand")
    if await kept.get(KEPT_ERRORED) == data:
        await kept.remove(KEPT_ERRORED)
    return new


def _refuse_older(new: State, old: State) -> None:
    if new.lineage != old.lineage:
        msg = "that state has another lineage than the one that stands: it began as another state, of other resources"
        detail = (
            f"pushed: lineage {new.lineage}, serial {new.serial}\nstands: lineage {old.lineage}, serial {old.serial}"
        )
        raise StageError(msg, detail=detail, hint="if it shall stand all the same: --force")
    if new.serial <= old.serial:
        how = "older than" if new.serial < old.serial else "not newer than"
        msg = f"that state (serial {new.serial}) is {how} the one that stands (serial {old.serial})"
        hint = "pull the one that stands, change that and raise its serial; if yours shall stand all the same: --force"
        raise StageError(msg, hint=hint)


def _renumbered(state: State, serial: int) -> State:
    document = json.loads(state.data)
    document["serial"] = serial
    return parse_state(json.dumps(document, indent=2).encode())


async def rollback(kept: KeptWriter, version: str, clock: Clock, epoch: int) -> State:
    """Let an earlier state stand again, with a serial of its own; the one that stood becomes an earlier one."""
    await _free(kept)
    old, before = await read(kept, version), await kept.get(KEPT_STATE)
    again = _renumbered(old, max(parse_state(before).serial if before else 0, old.serial) + 1)
    await replace_state(kept, again.data, clock.now(), epoch, f"by serial {version} again, by hand")
    if version == ERRORED:
        await kept.remove(KEPT_ERRORED)
    return again


async def settle(kept: KeptWriter, address: str, import_id: str | None) -> None:
    """Say of a resource in doubt what it is: an object with that import id, or (None) nothing. Raises NotFoundError."""
    journal, data = Journal.load(await kept.get(KEPT_JOURNAL)), await kept.get(KEPT_STATE)
    unheard = journal.suspects(parse_state(data).known if data is not None else {})
    open_ = {*journal.begun, *journal.made, *unheard}
    if address not in open_:
        hint = f"in doubt or to be imported: {', '.join(sorted(open_)) or 'none'}"
        raise NotFoundError(f"{address} is not in doubt", hint=hint)
    settled = {**journal.settled, address: import_id or ""}
    await kept.put(KEPT_JOURNAL, replace(journal, settled=settled).dump())


async def unlock(kept: KeptWriter, clock: Clock, epoch: int) -> str:
    """Free the state where a person vouches that the command that held it has ended; what it left is still rescued.

    Returns the lock's ID, or nothing where none was held. Raises StageError while it is seen to run here.
    """
    journal, held = Journal.load(await kept.get(KEPT_JOURNAL)), await read_lock(kept)
    holders = [*journal.holders, *([held.holder] if held else [])]
    for holder in holders:
        if standing(holder) is Standing.ALIVE:
            msg = f"the command that holds the state still runs on this machine: {holder}"
            ids = ", ".join(str(pid) for pid in processes_of(holder))
            raise StageError(msg, detail=f"processes: {ids}", hint="`skyspan cancel` stops it in order")
    if journal.holders:
        dead = tuple(replace(holder, dead=True) for holder in journal.holders)
        await kept.put(KEPT_JOURNAL, replace(journal, holders=dead).dump())
    if held is None:
        return ""
    vault = Vault(kept, clock, Holder("by-hand", this_machine(), dead=True), epoch)
    await vault.break_lock(held, "a person vouched that its holder has ended")
    return held.lock.id


async def _free(kept: Kept) -> None:
    held = await read_lock(kept)
    if held is not None:
        msg = f"the state is locked by a command that still runs or was killed: {held.holder}"
        raise StateLockedError(msg, hint="`skyspan up` takes over from a dead one; `skyspan state unlock` by hand")


def _name(version: str) -> str:
    if not version.isascii() or not version.isdigit():
        raise NotFoundError(f"{version!r} is no serial", hint="`skyspan state history` lists the versions")
    return version_name(int(version))
