"""Waiting until what was applied is healthy."""

from __future__ import annotations

from typing import Any

from skyspan.attempts.wanted import Wanted
from skyspan.contracts.context import ReadContext
from skyspan.model.change import Observation
from skyspan.model.error import NotReadyError

LIMIT_S = 60.0
"""How long to wait where the stage has no timeout of its own."""

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 5.0
_MARGIN = 0.9
"""Of the time that a stage's own timeout leaves, so that the failure can still be told with its reason."""


async def until_ready(want: Wanted, seen: Observation, ctx: ReadContext) -> Observation:
    """What is there once it is healthy; raises NotReadyError with what it still lacked in the end."""
    provider: Any = want.provider
    clock = ctx.clock
    left = LIMIT_S if ctx.deadline is None else (ctx.deadline - clock.monotonic()) * _MARGIN
    until = clock.monotonic() + left
    pause = _FIRST_PAUSE_S
    while not (seen.exists and seen.healthy):
        if clock.monotonic() + pause > until:
            raise NotReadyError(
                f"stage {want.stage} was applied, but is not healthy after {max(left, 0):.0f} s",
                detail=seen.reason or ("" if seen.exists else "it is not there"),
                hint=f"look in its log; `timeout` of stage {want.stage} sets how long to wait",
            )
        await clock.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_S)
        seen = await provider.observe(want.spec, ctx)
    return seen
