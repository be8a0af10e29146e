"""What the stage keeps sealed: which hosts it has touched, and what it applied last."""

from __future__ import annotations

import json
from dataclasses import dataclass

from skyspan.contracts.context import Kept, KeptWriter

_NAME = "tailnet"


@dataclass(frozen=True, slots=True)
class Memory:
    """`hosts` are written before they are touched. `applied` is the digest of the settings of the last apply that came
    to its end."""

    hosts: tuple[str, ...] = ()
    applied: str = ""


async def recall(kept: Kept) -> Memory | None:
    """What was kept; None when no host was ever touched."""
    data = await kept.get(_NAME)
    if data is None:
        return None
    record = json.loads(data)
    return Memory(tuple(record["hosts"]), record["applied"])


async def remember(kept: KeptWriter, memory: Memory) -> None:
    """Keep it, replacing what was kept; durable when the call returns."""
    record = {"hosts": list(memory.hosts), "applied": memory.applied}
    await kept.put(_NAME, json.dumps(record, separators=(",", ":")).encode())


async def forget(kept: KeptWriter) -> None:
    """Forget everything; absent is success."""
    await kept.remove(_NAME)
