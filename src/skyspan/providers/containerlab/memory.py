"""What a containerlab stage keeps: where its lab is, the topology that was applied, and how each node settled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from skyspan.contracts.context import Kept, KeptWriter
from skyspan.providers.lab.topology import Management

_NAME = "lab"


@dataclass(frozen=True, slots=True)
class Settled:
    """A node at the end of an apply: its container, since when it ran, its interfaces by name with their index in the
    node, and a digest of the files it was made with. Another index is another interface, without its addresses."""

    id: str
    started_at: str
    interfaces: Mapping[str, int]
    files: str = ""


@dataclass(frozen=True, slots=True)
class Rendered:
    """What containerlab made of a Go template; `mark` tells what it was rendered from."""

    mark: str
    text: str


@dataclass(frozen=True, slots=True)
class Memory:
    """Written before the host is touched. `topology` is the text that reached the host last, `file` its path in the
    tree there, `content` tells the files. `applied` is the digest of the settings of the last apply that came to its
    end; empty while one goes on or was cut off. `rendered` is there for a topology that is a Go template."""

    host: str | None
    lab: str
    topology: str
    file: str
    content: str
    management: Management
    applied: str = ""
    stopped: bool = False
    settled: Mapping[str, Settled] = field(default_factory=dict)
    rendered: Rendered | None = None


async def recall(kept: Kept) -> Memory | None:
    """What was kept; None when no host was ever touched."""
    data = await kept.get(_NAME)
    if data is None:
        return None
    record = json.loads(data)
    record["management"] = Management(**record["management"])
    record["settled"] = {name: Settled(**item) for name, item in record["settled"].items()}
    record["rendered"] = Rendered(**record["rendered"]) if record.get("rendered") else None
    return Memory(**record)


async def remember(kept: KeptWriter, memory: Memory) -> None:
    """Keep it, replacing what was kept; durable when the call returns."""
    await kept.put(_NAME, json.dumps(asdict(memory), separators=(",", ":")).encode())


async def forget(kept: KeptWriter) -> None:
    """Forget it; absent is success."""
    await kept.remove(_NAME)
