"""What a person may do to a stage's kept state: look into it, push another, go back, settle what is in doubt."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from skyspan.contracts.context import Clock, Kept, KeptWriter
from skyspan.model.error import NotFoundError, StageError
from skyspan.providers.terraform.endpoint.vault import (
    KEPT_LOCK,
    KEPT_STATE,
    Vault,
    read_index,
    read_lock,
    replace_state,
    version_name,
)
from skyspan.providers.terraform.holder import Holder, Standing, standing, this_machine
from skyspan.providers.terraform.journal import KEPT_JOURNAL, Journal
from skyspan.providers.terraform.state import KEPT_ERRORED, State, parse_state

ERRORED = "errored"
"""Names, in place of a serial, the state that a tool saved beside itself and that was not newer."""


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


async def doubts(kept: Kept) -> tuple[str, ...]:
    """What an interrupted command began and nobody knows the end of, by address."""
    data = await kept.get(KEPT_STATE)
    known = parse_state(data).known if data is not None else {}
    return Journal.load(await kept.get(KEPT_JOURNAL)).doubts(known)


async def push(kept: KeptWriter, data: bytes, clock: Clock, epoch: int, *, force: bool) -> State:
    """Put another state in place. Without `force` it must be a newer one of the same lineage. Raises StageError."""
    await _free(kept)
    new = parse_state(data)
    standing_data = await kept.get(KEPT_STATE)
    if standing_data is not None and not force:
        old = parse_state(standing_data)
        if new.lineage != old.lineage or new.serial <= old.serial:
            msg = f"that state ({new.fingerprint}) is not newer than the one that stands ({old.fingerprint})"
            raise StageError(msg, hint="if it shall stand all the same: --force")
    await replace_state(kept, data, clock.now(), epoch)
    return new


async def rollback(kept: KeptWriter, version: str, clock: Clock, epoch: int) -> State:
    """Let an earlier state stand again, with a serial of its own; the one that stood becomes an earlier one."""
    await _free(kept)
    old, now = await read(kept, version), await read(kept)
    document = json.loads(old.data)
    document["serial"] = now.serial + 1
    data = json.dumps(document, indent=2).encode()
    await replace_state(kept, data, clock.now(), epoch)
    return parse_state(data)


async def settle(kept: KeptWriter, address: str, import_id: str | None) -> None:
    """Say of a resource in doubt what it is: an object with that import id, or (None) nothing. Raises NotFoundError."""
    journal = Journal.load(await kept.get(KEPT_JOURNAL))
    if address not in journal.begun and address not in journal.made:
        known = ", ".join(sorted({*journal.begun, *journal.made})) or "none"
        raise NotFoundError(f"{address} is not in doubt", hint=f"in doubt or to be imported: {known}")
    settled = {**journal.settled, address: import_id or ""}
    await kept.put(KEPT_JOURNAL, replace(journal, settled=settled).dump())


async def unlock(kept: KeptWriter, clock: Clock, epoch: int) -> str:
    """Free the state where a person vouches that the command that held it has ended; what it left is still rescued.

    Returns the lock's ID, or nothing where none was held. Raises StageError while it is seen to run here.
    """
    journal, held = Journal.load(await kept.get(KEPT_JOURNAL)), await read_lock(kept)
    holders = [*journal.holders, *([held.holder] if held else [])]
    if any(standing(holder) is Standing.ALIVE for holder in holders):
        msg = "the command that holds the state still runs on this machine"
        raise StageError(msg, hint="`skyspan cancel` stops it in order")
    if journal.holders:
        dead = tuple(replace(holder, dead=True) for holder in journal.holders)
        await kept.put(KEPT_JOURNAL, replace(journal, holders=dead).dump())
    if held is None:
        return ""
    vault = Vault(kept, clock, Holder("by-hand", this_machine(), dead=True), epoch)
    await vault.break_lock(held, "a person vouched that its holder has ended")
    return held.lock.id


async def _free(kept: Kept) -> None:
    if await kept.get(KEPT_LOCK) is not None:
        msg = "the state is locked by a command that still runs or was killed"
        raise StageError(msg, hint="`skyspan up` takes over from a dead one; `skyspan state unlock` by hand")


def _name(version: str) -> str:
    if not version.isascii() or not version.isdigit():
        raise NotFoundError(f"{version!r} is no serial", hint="`skyspan state history` lists the versions")
    return version_name(int(version))
