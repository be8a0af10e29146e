"""What the stage keeps sealed: the hosts it has touched, what it applied last, and what was measured then."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from skyspan.contracts.context import Kept, KeptWriter

_NAME = "traffic"
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Memory:
    """`places` are hosts, written before they are touched; None is this machine. `applied` is the digest of the
    settings of the last apply that came to its end, `stamp` tells it from others, `flows` are its outputs."""

    places: tuple[str | None, ...] = ()
    applied: str = ""
    stamp: str = ""
    flows: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)


async def recall(kept: Kept) -> Memory | None:
    """What was kept; None when nothing was ever applied."""
    data = await kept.get(_NAME)
    if data is None:
        return None
    record = json.loads(data)
    return Memory(tuple(record["places"]), record["applied"], record["stamp"], record["flows"])


async def remember(kept: KeptWriter, memory: Memory) -> None:
    """Keep it, replacing what was kept; durable when the call returns."""
    await kept.put(_NAME, _record(memory))


def remember_with_end(kept: KeptWriter, memory: Memory) -> None:
    """Keep it together with the end of the attempt."""
    kept.put_soon(_NAME, _record(memory))


def _record(memory: Memory) -> bytes:
    record = {
        "places": list(memory.places),
        "applied": memory.applied,
        "stamp": memory.stamp,
        "flows": dict(memory.flows),
    }
    return json.dumps(record, separators=(",", ":")).encode()


async def forget(kept: KeptWriter) -> None:
    """Forget everything; absent is success."""
    await kept.remove(_NAME)
