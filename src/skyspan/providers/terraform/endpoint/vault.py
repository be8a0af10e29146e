"""Keeps what the endpoint decides: the state, the versions before it, the lock; all sealed, durable when told done."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skyspan.contracts.context import Clock, Kept, KeptWriter
from skyspan.providers.terraform.endpoint.ledger import Deed, DropLock, Keep, Lock, TakeLock, Version, read_version
from skyspan.providers.terraform.holder import Holder

KEPT_STATE = "state"
KEPT_LOCK = "lock"
KEPT_INDEX = "state-index"

VERSIONS = 10
"""How many earlier states are kept: one of before each command that changed it."""


@dataclass(frozen=True, slots=True)
class Held:
    """A lock as it is kept: with who took it."""

    lock: Lock
    holder: Holder

    def record(self) -> bytes:
        """As it is kept."""
        info = self.lock.info.decode(errors="replace")
        return json.dumps(
            {"id": self.lock.id, "info": info, "epoch": self.lock.epoch, "holder": self.holder.record()}
        ).encode()

    @classmethod
    def restore(cls, data: bytes) -> Held:
        """The lock that `record` made `data` of."""
        found = json.loads(data)
        lock = Lock(str(found["id"]), str(found["info"]).encode(), int(found["epoch"]))
        return cls(lock, Holder.restore(found["holder"]))


def version_name(serial: int) -> str:
    """Under which name an earlier state is kept."""
    return f"state-{serial}"


async def read_index(kept: Kept) -> list[dict[str, Any]]:
    """What happened to the state, oldest first: `replaced` versions and `lock broken`."""
    data = await kept.get(KEPT_INDEX)
    return list(json.loads(data)) if data is not None else []


async def read_lock(kept: Kept) -> Held | None:
    """The lock that is held, or that a killed command left."""
    data = await kept.get(KEPT_LOCK)
    return Held.restore(data) if data is not None else None


@dataclass
class Vault:
    """Carries out the deeds of one writing verb. The first write archives the state that stood before the verb."""

    kept: KeptWriter
    clock: Clock
    holder: Holder
    epoch: int
    _archived: bool = False

    async def perform(self, deed: Deed) -> None:
        """Make it durable. Raises FencedError under an older lease, StoreError when it cannot be written."""
        match deed:
            case TakeLock(lock):
                await self.kept.put(KEPT_LOCK, Held(lock, self.holder).record())
            case DropLock():
                await self.kept.remove(KEPT_LOCK)
            case Keep(state, before):
                if before is not None and not self._archived:
                    await archive(self.kept, before, self.clock.now(), self.epoch)
                    self._archived = True
                await self.kept.put(KEPT_STATE, state.data)

    async def break_lock(self, held: Held, why: str) -> None:
        """Free a lock whose holder is known to be dead, and note that for good. Needs the newer or the same lease."""
        entry = {"event": "lock broken", "lock": held.lock.id, "epoch": held.lock.epoch, "why": why}
        await _note(self.kept, [*await read_index(self.kept), self._stamped(entry)])
        await self.kept.remove(KEPT_LOCK)

    def _stamped(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        return {"at": self.clock.now(), "by_epoch": self.epoch, **entry}


async def archive(kept: KeptWriter, before: Version, at: float, epoch: int, why: str = "") -> None:
    """Keep a state that is about to be replaced, and `why` when it is not by a command; the oldest beyond the last ones
    go."""
    name = version_name(before.serial)
    await kept.put(name, before.data)
    index = [entry for entry in await read_index(kept) if entry.get("name") != name]
    entry = {
        "at": at,
        "event": "replaced",
        "name": name,
        "serial": before.serial,
        "lineage": before.lineage,
        "size": len(before.data),
        "by_epoch": epoch,
        "why": why,
    }
    await _note(kept, [*index, entry])


async def replace_state(kept: KeptWriter, data: bytes, at: float, epoch: int, why: str) -> None:
    """Put another state in place otherwise than by a command, the one before it archived."""
    before = read_version(await kept.get(KEPT_STATE) or b"")
    if before is not None:
        await archive(kept, before, at, epoch, why)
    await kept.put(KEPT_STATE, data)


async def forget_all(kept: KeptWriter) -> None:
    """Forget the state, its versions and its lock."""
    for entry in await read_index(kept):
        if "name" in entry:
            await kept.remove(str(entry["name"]))
    for name in (KEPT_STATE, KEPT_LOCK, KEPT_INDEX):
        await kept.remove(name)


async def _note(kept: KeptWriter, index: Sequence[Mapping[str, Any]]) -> None:
    versions = [entry for entry in index if "name" in entry]
    gone = [entry["name"] for entry in versions[:-VERSIONS]]
    events = [entry for entry in index if "name" not in entry][-VERSIONS:]
    left = [entry for entry in index if entry in events or ("name" in entry and entry["name"] not in gone)]
    await kept.put(KEPT_INDEX, json.dumps(left).encode())
    for name in gone:
        await kept.remove(str(name))
