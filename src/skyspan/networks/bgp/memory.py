"""What the stage keeps sealed: which hosts it has touched, what each runs, what it applied last, and what to ping."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from skyspan.contracts.context import Kept, KeptWriter
from skyspan.model.secret import Secret

_NAME = "bgp"
_NOTHING: Mapping[str, Secret] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Memory:
    """`places` are written before they are touched. `texts` is by host the configuration that its daemon has, `sites`
    by host its own addresses inside what it announces. `applied` is the digest of the settings of the last apply that
    came to its end."""

    places: tuple[str, ...] = ()
    texts: Mapping[str, Secret] = field(default_factory=lambda: _NOTHING)
    sites: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    applied: str = ""


async def recall(kept: Kept) -> Memory | None:
    """What was kept; None when no host was ever touched."""
    data = await kept.get(_NAME)
    if data is None:
        return None
    record = json.loads(data)
    return Memory(
        places=tuple(record["places"]),
        texts={host: Secret(text) for host, text in record["texts"].items()},
        sites={host: tuple(found) for host, found in record["sites"].items()},
        applied=record["applied"],
    )


async def remember(kept: KeptWriter, memory: Memory) -> None:
    """Keep it, replacing what was kept; durable when the call returns."""
    record = {
        "places": list(memory.places),
        "texts": {host: text.reveal() for host, text in memory.texts.items()},
        "sites": {host: list(found) for host, found in memory.sites.items()},
        "applied": memory.applied,
    }
    await kept.put(_NAME, json.dumps(record, separators=(",", ":")).encode())


async def forget(kept: KeptWriter) -> None:
    """Forget everything; absent is success."""
    await kept.remove(_NAME)
