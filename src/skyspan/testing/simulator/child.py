"""A simulated attempt: looks, intends, acts, ends; can be stopped, killed, orphaned and found again."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol

from skyspan.model.error import StageTimeoutError
from skyspan.model.event import AttemptFailed, EffectIntended, StageEnded
from skyspan.model.lifecycle import StageStatus
from skyspan.testing.simulator.scenario import End, Fate


class Progress(Enum):
    """How far an attempt has come."""

    LOOKING = auto()
    INTENDING = auto()
    ACTING = auto()
    OVER = auto()


class Owner(Protocol):
    """The engine that an attempt reports to."""

    def report(self, event: StageEnded | AttemptFailed, child: Child) -> None:
        """The attempt says how it ended."""
        ...

    def intend(self, event: EffectIntended, child: Child) -> None:
        """The attempt may act once this is durable."""
        ...


class Surroundings(Protocol):
    """What an attempt needs of the world."""

    def later(self, delay_s: float, action: Callable[[], None]) -> None:
        """Do it when that time has passed."""
        ...

    def lacking(self, stage: str) -> str:
        """The best-effort stage that failed and that `stage` reads, or nothing."""
        ...

    def acts(self, child: Child) -> None:
        """The attempt begins to change the real world."""
        ...

    def acted(self, child: Child) -> None:
        """It has stopped changing the real world."""
        ...


class Child:
    """One attempt at one stage. After it began to act it is a process of its own and outlives its engine."""

    __slots__ = (
        "_fate",
        "_timed_out",
        "_timeout_s",
        "_turn",
        "_world",
        "attempt",
        "cut_off",
        "name",
        "outcome",
        "owner",
        "progress",
        "stops",
    )

    def __init__(
        self, name: str, attempt: int, fate: Fate, timeout_s: float | None, owner: Owner, world: Surroundings
    ) -> None:
        self.name, self.attempt, self.owner = name, attempt, owner
        self._fate, self._timeout_s, self._world = fate, timeout_s, world
        self.progress = Progress.LOOKING
        self.outcome: StageEnded | AttemptFailed | None = None
        self.stops = 0
        self.cut_off = False
        """Whether it was killed while it acted."""
        self._timed_out = False
        self._turn = 0

    def begin(self) -> None:
        """Start to look."""
        self._later(self._fate.looks_s, self._looked)
        if self._timeout_s is not None:
            self._world.later(self._timeout_s, self._expire)

    def act_again(self) -> None:
        """Act at once: another engine recorded the intent, and nothing is left of what it did."""
        self.progress = Progress.INTENDING
        self._world.later(0.0, self.go_ahead)

    def go_ahead(self) -> None:
        """The intent is durable: act."""
        if self.progress is Progress.INTENDING and not (self.stops or self._timed_out):
            self.progress = Progress.ACTING
            self._world.acts(self)
            self._later(self._fate.acts_s, self._acted)

    def stop(self) -> None:
        """Stop in order; asked again, at once. A stop for a timeout that has begun is left to go on."""
        self.stops += 1
        if self.stops > 1:
            self._later(0.0, self._stopped)
        elif not self._timed_out:
            self._later(self._fate.stops_s, self._stopped)

    def die(self) -> None:
        """Vanish without a word."""
        if self.progress is Progress.ACTING:
            self.cut_off = True
            self._world.acted(self)
        self.progress = Progress.OVER
        self._turn += 1

    @property
    def outlives(self) -> bool:
        """Whether it goes on, or its end is kept, when its engine dies."""
        return self.progress is Progress.ACTING or (self.progress is Progress.OVER and self.outcome is not None)

    def _later(self, delay_s: float, action: Callable[[], None]) -> None:
        """What it does next, unless something else comes between."""
        self._turn += 1
        turn = self._turn

        def act() -> None:
            if self._turn == turn:
                action()

        self._world.later(delay_s, act)

    def _looked(self) -> None:
        if self._fate.end.touches:
            self.progress = Progress.INTENDING
            self.owner.intend(EffectIntended(self.name, self.attempt, "apply"), self)
        else:
            self._over(self._end())

    def _acted(self) -> None:
        self._over(self._end())

    def _expire(self) -> None:
        if self.progress is not Progress.OVER and not self.stops:
            self._timed_out = True
            self._later(self._fate.stops_s, self._stopped)

    def _stopped(self) -> None:
        if self._timed_out:
            error = StageTimeoutError(f"{self.name} did not end in time")
            self._over(AttemptFailed(self.name, self.attempt, error.record()))
        else:
            self._over(StageEnded(self.name, self.attempt, StageStatus.CANCELLED, reason="stopped"))

    def _over(self, outcome: StageEnded | AttemptFailed) -> None:
        if self.progress is Progress.OVER:
            return
        before, self.progress, self.outcome = self.progress, Progress.OVER, outcome
        if before is Progress.ACTING:
            self._world.acted(self)
        self.owner.report(outcome, self)

    def _end(self) -> StageEnded | AttemptFailed:
        return ending(self.name, self.attempt, self._fate.end, self._world.lacking)


def ending(stage: str, attempt: int, end: End, lacking: Callable[[str], str]) -> StageEnded | AttemptFailed:
    """How an attempt with that end reports it. `lacking` names the failed stage that this one cannot do without."""
    match end:
        case End.SUCCEEDED | End.HANGS:
            return StageEnded(stage, attempt, StageStatus.SUCCEEDED, change="update", outputs=("value",))
        case End.UNCHANGED:
            return StageEnded(stage, attempt, StageStatus.UNCHANGED)
        case End.LEFT_OUT:
            return StageEnded(stage, attempt, StageStatus.SKIPPED, reason="`if` is false")
        case End.LACKING:
            if cause := lacking(stage):
                return StageEnded(stage, attempt, StageStatus.SKIPPED, reason=f"{cause} failed", cause=cause)
            return StageEnded(stage, attempt, StageStatus.UNCHANGED)
        case _:
            record = end.error.record() if end.error is not None else {}
            if end is End.REPORTED_FAILED:
                return StageEnded(stage, attempt, StageStatus.FAILED, reason="the tool said no", error=record)
            return AttemptFailed(stage, attempt, record)
