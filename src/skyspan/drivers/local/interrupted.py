"""What is to become of a run that was interrupted, and what is due in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from skyspan.engine import BeginAttempt, Effect, Phase, RunState, Wake
from skyspan.model.event import CancelRequested, Event, RecordedEvent, RetryScheduled, RunEnded, StageEnded
from skyspan.model.lifecycle import RunStatus, StageStatus


class _Way(Enum):
    FINISH = auto()
    WIND_UP = auto()
    CANCEL = auto()


@dataclass(frozen=True, slots=True)
class Aim:
    """Finish the run; or wind it up: only what had touched the real world comes to its end, nothing new begins, and
    the run is lost; or cancel it: nothing is performed any more, as what ran was stopped by then."""

    way: _Way = _Way.FINISH
    by: str = ""

    @classmethod
    def finish(cls) -> Aim:
        """Carry the run on as if nothing had been."""
        return cls()

    @classmethod
    def wind_up(cls, by: str) -> Aim:
        """Make room for `by`."""
        return cls(_Way.WIND_UP, by)

    @classmethod
    def cancel(cls, by: str) -> Aim:
        """End it, as `by` wants."""
        return cls(_Way.CANCEL, by)

    @property
    def finishes(self) -> bool:
        """Whether new stages begin."""
        return self.way is _Way.FINISH

    def ending(self, ended: RunEnded) -> RunEnded:
        """How the run counts in the end, where the engine decided `ended`."""
        if self.way is not _Way.WIND_UP:
            return ended
        return RunEnded(RunStatus.LOST, f"its engine ended before it did; {self.by} took over")

    def opening(self, state: RunState) -> Iterator[Event]:
        """What is recorded first: that nothing new begins, and the ends of attempts that are not performed any more."""
        if self.finishes:
            return
        yield CancelRequested(self.by)
        for outline, stage in zip(state.shape.outlines, state.board, strict=True):
            if stage.phase is Phase.RUNNING and not self.performs(stage.intent):
                reason = (
                    f"interrupted during {stage.intent}" if stage.intent else "interrupted before it changed anything"
                )
                yield StageEnded(outline.name, stage.attempt, StageStatus.CANCELLED, reason=reason)

    def performs(self, intent: str) -> bool:
        """Whether an attempt that had come to `intent` is brought to its end."""
        return self.finishes or (self.way is _Way.WIND_UP and bool(intent))


def due(state: RunState, recorded: Sequence[RecordedEvent], now: float) -> Iterator[Effect]:
    """The effects that were decided and whose consequences are not recorded."""
    pauses = _pauses(recorded)
    for outline, stage in zip(state.shape.outlines, state.board, strict=True):
        if stage.phase is Phase.RUNNING:
            yield BeginAttempt(outline.name, stage.attempt, outline.timeout_s)
        elif stage.phase is Phase.PAUSED:
            yield Wake(outline.name, stage.attempt + 1, max(pauses.get(outline.name, now) - now, 0.0))


def _pauses(recorded: Iterable[RecordedEvent]) -> dict[str, float]:
    # A clock that was set back must not make a pause longer than it was meant to be.
    return {
        item.event.stage: item.at + item.event.delay_s for item in recorded if isinstance(item.event, RetryScheduled)
    }
