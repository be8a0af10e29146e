"""How long something on hosts is waited for, and how often it is looked at meanwhile."""

from __future__ import annotations

from dataclasses import dataclass

from skyspan.contracts.context import Clock, StageContext

_PAUSE_S = 0.3


@dataclass(frozen=True, slots=True)
class Patience:
    """Until when something is waited for, by the monotonic clock."""

    clock: Clock
    until: float

    @classmethod
    def of(cls, seconds: float, ctx: StageContext) -> Patience:
        """So many seconds from now, and no longer than the attempt may take."""
        until = ctx.clock.monotonic() + seconds
        return cls(ctx.clock, until if ctx.deadline is None else min(until, ctx.deadline))

    @property
    def ends(self) -> bool:
        """Whether another look would come too late."""
        return self.clock.monotonic() + _PAUSE_S >= self.until

    async def pause(self) -> None:
        """Wait for the time of the next look."""
        await self.clock.sleep(_PAUSE_S)
