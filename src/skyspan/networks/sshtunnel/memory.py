"""What the stage keeps: that a forwarder was started for it, and what it applied last."""

from __future__ import annotations

import json
from dataclasses import dataclass

from skyspan.contracts.context import Kept, KeptWriter

_NAME = "ssh-tunnel"


@dataclass(frozen=True, slots=True)
class Memory:
    """Written before a forwarder is started; `applied` is the digest of the settings of the last apply that came to its
    end."""

    applied: str = ""


async def recall(kept: Kept) -> Memory | None:
    """What was kept; None when nothing was ever started."""
    data = await kept.get(_NAME)
    return None if data is None else Memory(json.loads(data)["applied"])


async def remember(kept: KeptWriter, memory: Memory) -> None:
    """Keep it, replacing what was kept; durable when the call returns."""
    await kept.put(_NAME, json.dumps({"applied": memory.applied}).encode())


async def forget(kept: KeptWriter) -> None:
    """Forget everything; absent is success."""
    await kept.remove(_NAME)
