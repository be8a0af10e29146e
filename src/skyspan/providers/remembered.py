"""What a stage remembers of its last apply, for tools that leave no evidence of their own.

Kept sealed under one name, as digests of specs and outputs may come from secrets; nothing of it but `stamp` is shown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from skyspan.contracts.context import Kept, KeptWriter, StageContext
from skyspan.model.change import NO_OUTPUTS
from skyspan.model.value import OutputValue

_NAME = "applied"


@dataclass(frozen=True, slots=True)
class Remembered:
    """The last apply. `finished` is false while one goes on or after one that was interrupted.

    `effect` is the digest of the settings that were carried out, `spec` that of all settings. `stamp` tells one apply
    from another and holds nothing secret.
    """

    finished: bool
    effect: str = ""
    spec: str = ""
    stamp: str = ""
    stopped: bool = False
    outputs: Mapping[str, OutputValue] = field(default_factory=lambda: NO_OUTPUTS)


async def recall(kept: Kept) -> Remembered | None:
    """The last apply; None when there was none, or when it was destroyed."""
    data = await kept.get(_NAME)
    if data is None:
        return None
    record = json.loads(data)
    return Remembered(
        finished=record["finished"],
        effect=record["effect"],
        spec=record["spec"],
        stamp=record["stamp"],
        stopped=record["stopped"],
        outputs={name: OutputValue(value, sensitive) for name, (value, sensitive) in record["outputs"].items()},
    )


async def remember(kept: KeptWriter, what: Remembered) -> None:
    """Keep it, replacing what was remembered; durable when the call returns."""
    await kept.put(_NAME, _record(what))


def remember_with_end(kept: KeptWriter, what: Remembered) -> None:
    """Keep it together with the end of the attempt: what is done is done once both are durable."""
    kept.put_soon(_NAME, _record(what))


def _record(what: Remembered) -> bytes:
    record = {
        "finished": what.finished,
        "effect": what.effect,
        "spec": what.spec,
        "stamp": what.stamp,
        "stopped": what.stopped,
        "outputs": {name: (output.value, output.sensitive) for name, output in what.outputs.items()},
    }
    return json.dumps(record, separators=(",", ":")).encode()


async def forget(kept: KeptWriter) -> None:
    """Forget it; absent is success."""
    await kept.remove(_NAME)


def stamp_of(ctx: StageContext) -> str:
    """A mark that no other apply of the stage has: the same one when another engine carries this apply on."""
    return ctx.attempt_id or f"{ctx.epoch}.{ctx.attempt}.{ctx.clock.now():.6f}"
