"""A performer that follows a script: how long each stage takes, how each attempt ends, how it takes being stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from skyspan.contracts.context import Clock
from skyspan.contracts.engine import Journal, Outcome
from skyspan.model.error import StageError
from skyspan.model.event import AttemptFailed, EffectIntended, StageEnded
from skyspan.model.lifecycle import StageStatus


@dataclass(frozen=True, slots=True)
class Script:
    """What one stage does.

    `ends` holds the end of each attempt in turn, the last one for all that follow: a status, an error that fails the
    attempt, or an exception that escapes as a bug. `takes_s` passes before that. `effect` is intended first, when not
    empty. `cause` goes with a skipped end. When stopped it takes `stopping_s` to end, unless it is stopped again.
    """

    ends: tuple[StageStatus | Exception, ...] = (StageStatus.SUCCEEDED,)
    takes_s: float = 0.0
    effect: str = "apply"
    cause: str = ""
    stopping_s: float = 0.0


@dataclass(slots=True)
class ScriptedPerformer:
    """Implements `contracts.engine.Performer`. `log` tells what really happened, in order: (what, stage, attempt)."""

    clock: Clock
    scripts: Mapping[str, Script] = field(default_factory=dict)
    log: list[tuple[str, str, int]] = field(default_factory=list)
    running: set[str] = field(default_factory=set)
    most_at_once: int = 0

    async def perform(self, stage: str, attempt: int, journal: Journal) -> Outcome:
        """Follow the script of `stage`."""
        if stage in self.running:
            msg = f"two attempts at {stage} at the same time"
            raise AssertionError(msg)
        self.running.add(stage)
        self.most_at_once = max(self.most_at_once, len(self.running))
        self.log.append(("begin", stage, attempt))
        try:
            return await self._follow(self.scripts.get(stage, Script()), stage, attempt, journal)
        finally:
            self.running.discard(stage)
            self.log.append(("end", stage, attempt))

    def begun(self) -> list[str]:
        """The stages in the order in which they were begun."""
        return [stage for what, stage, _ in self.log if what == "begin"]

    async def _follow(self, script: Script, stage: str, attempt: int, journal: Journal) -> Outcome:
        try:
            if script.effect:
                await journal.record(EffectIntended(stage, attempt, script.effect))
                self.log.append(("effect", stage, attempt))
            if script.takes_s:
                await self.clock.sleep(script.takes_s)
        except asyncio.CancelledError:
            await self._stop(script, stage, attempt)
            raise
        end = script.ends[min(attempt, len(script.ends)) - 1]
        if isinstance(end, StageError):
            return Outcome(AttemptFailed(stage, attempt, end.record()))
        if isinstance(end, Exception):
            raise end
        return Outcome(StageEnded(stage, attempt, end, cause=script.cause))

    async def _stop(self, script: Script, stage: str, attempt: int) -> None:
        self.log.append(("stop", stage, attempt))
        try:
            await self.clock.sleep(script.stopping_s)
        except asyncio.CancelledError:
            self.log.append(("kill", stage, attempt))
            raise
