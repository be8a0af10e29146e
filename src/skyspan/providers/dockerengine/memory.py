"""What a stage keeps sealed: the key of its digests, the daemons it has touched, and what it applied last."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from skyspan.contracts.context import Kept, KeptWriter
from skyspan.model.value import tagged, untagged
from skyspan.providers.dockerengine.engine import Where
from skyspan.providers.dockerengine.spec import EngineSettings

_NAME = "docker"
"""Of one stage there is only one, whatever its kind."""


@dataclass(frozen=True, slots=True)
class Memory:
    """`places` are written before they are touched. `applied` is the digest of what was asked for by the last apply
    that came to its end, `details` what the provider wants to know of it. `key` seals the digests on labels."""

    key: str = ""
    places: tuple[Where, ...] = ()
    applied: str = ""
    stopped: bool = False
    details: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def seal(self) -> bytes:
        """The key of the digests."""
        return bytes.fromhex(self.key)

    @property
    def interrupted(self) -> bool:
        """Whether an apply has begun of which nobody knows that it came to its end."""
        return self.applied == "" and bool(self.places)

    def at(self, where: Where) -> Memory:
        """The same with a key, and with one more daemon, whose certificates may be new."""
        from nacl.utils import random

        others = tuple(place for place in self.places if place.mark != where.mark)
        return replace(self, key=self.key or random(32).hex(), places=(*others, where))

    def leaving(self, where: Where) -> tuple[Where, ...]:
        """The daemons that the settings no longer name."""
        return tuple(place for place in self.places if place.mark != where.mark)


async def recall(kept: Kept) -> Memory | None:
    """What was kept; None when nothing was ever touched."""
    data = await kept.get(_NAME)
    if data is None:
        return None
    record = untagged(json.loads(data))
    return Memory(
        key=record["key"],
        places=tuple(_place(item) for item in record["places"]),
        applied=record["applied"],
        stopped=record["stopped"],
        details=record["details"],
    )


async def remember(kept: KeptWriter, memory: Memory) -> None:
    """Keep it; durable when the call returns."""
    await kept.put(_NAME, _record(memory))


def remember_with_end(kept: KeptWriter, memory: Memory) -> None:
    """Keep it together with the end of the attempt: what is done is done once both are durable."""
    kept.put_soon(_NAME, _record(memory))


def _record(memory: Memory) -> bytes:
    places = [
        {"host": one.host, "engine": one.settings.model_dump() if one.settings is not None else None}
        for one in memory.places
    ]
    record = {
        "key": memory.key,
        "places": places,
        "applied": memory.applied,
        "stopped": memory.stopped,
        "details": dict(memory.details),
    }
    return json.dumps(tagged(record), separators=(",", ":")).encode()


async def forget(kept: KeptWriter) -> None:
    """Forget everything; absent is success."""
    await kept.remove(_NAME)


def _place(item: dict[str, object]) -> Where:
    engine = item["engine"]
    host = item["host"]
    settings = EngineSettings.model_validate(engine) if engine is not None else None
    return Where(str(host) if host is not None else None, settings)
