"""What a netlab stage keeps sealed: where its lab is, what it was made from, and what netlab said of it then."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any

from skyspan.contracts.context import Kept, KeptWriter
from skyspan.providers.netlab.commands import Place
from skyspan.providers.netlab.facts import Facts

_NAME = "lab"


@dataclass(frozen=True, slots=True)
class Made:
    """What `netlab create` came to: the facts, the containerlab topology as it is deployed, and a digest of each
    node's configuration files."""

    facts: Facts
    clab: str = ""
    configs: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Memory:
    """`place` is written before anything is touched there. `applied` is the digest of what the last apply that came to
    its end was made from, `version` the netlab that did it, `snapshot` the digest of netlab's own record of the lab.
    `started` is when each node's container began. `report` is how the topology's tests went, and `checked` the
    digest of the tests and waits that the lab as it is has passed."""

    place: Place
    host: str | None
    program: str = "netlab"
    made: Made | None = None
    applied: str = ""
    version: str = ""
    package: str = ""
    checked: str = ""
    snapshot: str = ""
    stopped: bool = False
    started: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    report: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


async def recall(kept: Kept) -> Memory | None:
    """What was kept; None when no host was ever touched."""
    data = await kept.get(_NAME)
    if data is None:
        return None
    record = json.loads(data)
    made = record.pop("made")
    place = Place(**record.pop("place"))
    return Memory(
        place=place,
        made=Made(Facts(made["facts"]), made["clab"], made["configs"]) if made is not None else None,
        **record,
    )


async def remember(kept: KeptWriter, memory: Memory) -> None:
    """Keep it, replacing what was kept; durable when the call returns."""
    made = memory.made
    record = {name: getattr(memory, name) for name in Memory.__slots__ if name not in ("made", "place")}
    record["started"], record["report"] = dict(memory.started), dict(memory.report)
    record["place"] = asdict(memory.place)
    record["made"] = (
        {"facts": made.facts.data, "clab": made.clab, "configs": dict(made.configs)} if made is not None else None
    )
    await kept.put(_NAME, json.dumps(record, separators=(",", ":")).encode())


async def forget(kept: KeptWriter) -> None:
    """Forget everything; absent is success."""
    await kept.remove(_NAME)


def unfinished(memory: Memory) -> Memory:
    """The same, from the moment that the lab is changed."""
    return replace(memory, applied="", stopped=False)
