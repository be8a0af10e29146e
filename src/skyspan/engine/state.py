"""What the engine knows of a run, and how each recorded event changes it.

`evolve` is the fold over a run's events, so the state of a run that was interrupted is `restore(its events)`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any

from skyspan.engine.board import Board
from skyspan.engine.shape import Shape, shape_of
from skyspan.model.event import (
    AttemptFailed,
    CancelRequested,
    EffectIntended,
    Event,
    RetryDue,
    RetryScheduled,
    RunEnded,
    RunStarted,
    StageEnded,
    StageOutline,
    StageStarted,
)
from skyspan.model.lifecycle import StageStatus, Verb


class Phase(Enum):
    """Where a stage is between the run's start and its own end."""

    WAITING = auto()
    READY = auto()
    RUNNING = auto()
    PAUSED = auto()
    ENDED = auto()


@dataclass(frozen=True, slots=True)
class StageState:
    """One stage: what it waits for, its latest attempt, and the effect it may have begun.

    `attempt` counts those begun. `intent` is the effect recorded by the running attempt, so an attempt that was cut off
    with an intent may have touched the real world and one without has not.
    """

    phase: Phase = Phase.WAITING
    unmet: int = 0
    attempt: int = 0
    intent: str = ""
    status: StageStatus = StageStatus.PENDING
    error: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class RunState:
    """A run. `ready[head:]` is the queue of stages that may start (ended ones in it are passed over)."""

    verb: Verb = Verb.UP
    shape: Shape = Shape((), {}, (), ())
    begun: bool = False
    concurrency: int = 1
    fail_fast: bool = False
    board: Board[StageState] = Board()
    ready: tuple[int, ...] = ()
    head: int = 0
    running: int = 0
    unended: int = 0
    cancelled_by: str | None = None
    failed: tuple[str, ...] = ()
    failed_best_effort: tuple[str, ...] = ()
    skipped: int = 0
    cancelled: int = 0
    ended: RunEnded | None = None

    def place(self, stage: str) -> int:
        """The number of a stage; KeyError when it is not in the run."""
        return self.shape.index[stage]

    def outline(self, stage: str) -> StageOutline:
        """What was said of the stage when the run began."""
        return self.shape.outlines[self.shape.index[stage]]

    def stage(self, stage: str) -> StageState:
        """How the stage stands."""
        return self.board[self.shape.index[stage]]

    @property
    def closing(self) -> bool:
        """Whether no new attempt may start, because the run is cancelled or failed fast."""
        return self.cancelled_by is not None or (self.fail_fast and bool(self.failed))


NEW = RunState()
"""Before a run's first event."""


def restore(events: Iterable[Event]) -> RunState:
    """The state after `events`, which are all of a run's, in order."""
    state = NEW
    for event in events:
        state = evolve(state, event)
    return state


def releases(outline: StageOutline, ended: StageEnded) -> bool:
    """Whether this end lets the stage's dependents go on.

    It does when the stage ended well; when it was left out by its own condition (skipped without a cause); and when
    it is best effort: then its dependents say themselves, by what they read, whether they can do without.
    """
    if ended.status.satisfies:
        return True
    if ended.status is StageStatus.CANCELLED:
        return False
    return outline.best_effort or (ended.status is StageStatus.SKIPPED and not ended.cause)


def evolve(state: RunState, event: Event) -> RunState:
    """The state after `event` was recorded."""
    match event:
        case RunStarted():
            return _begun(event)
        case StageStarted():
            return _started(state, event)
        case EffectIntended():
            return _with(state, event.stage, intent=event.effect)
        case StageEnded():
            return _ended(state, event)
        case AttemptFailed():
            return _with(state, event.stage, error=event.error)
        case RetryScheduled():
            paused = _with(state, event.stage, phase=Phase.PAUSED)
            return _moved(paused, paused.board, paused.head, state.running - 1)
        case RetryDue():
            due = _with(state, event.stage, phase=Phase.READY)
            return _queued(due, (state.place(event.stage),))
        case CancelRequested():
            return replace(state, cancelled_by=event.requested_by) if state.cancelled_by is None else state
        case RunEnded():
            return replace(state, ended=event)
        case _:
            return state


def _begun(event: RunStarted) -> RunState:
    shape = shape_of(event)
    stages = [StageState(Phase.WAITING if unmet else Phase.READY, unmet) for unmet in shape.unmet]
    return RunState(
        verb=event.verb,
        shape=shape,
        begun=True,
        concurrency=max(event.concurrency, 1),
        fail_fast=event.fail_fast,
        board=Board.of(stages),
        ready=tuple(place for place, stage in enumerate(stages) if stage.phase is Phase.READY),
        unended=len(stages),
    )


def _started(state: RunState, event: StageStarted) -> RunState:
    place = state.place(event.stage)
    stage = StageState(Phase.RUNNING, attempt=event.attempt, status=StageStatus.RUNNING)
    board, head = state.board.put(place, stage), state.head
    while head < len(state.ready) and board[state.ready[head]].phase is not Phase.READY:
        head += 1
    return _moved(state, board, head, state.running + 1)


def _ended(state: RunState, event: StageEnded) -> RunState:
    place = state.place(event.stage)
    before = state.board[place]
    if before.phase is Phase.ENDED:
        return state
    outline = state.shape.outlines[place]
    error = event.error or before.error
    after = StageState(Phase.ENDED, attempt=event.attempt, intent=before.intent, status=event.status, error=error)
    board = state.board.put(place, after)
    freed: list[int] = []
    if releases(outline, event):
        for dependent in state.shape.dependents[place]:
            waiting = board[dependent]
            if waiting.phase is not Phase.WAITING:
                continue
            unmet = waiting.unmet - 1
            # No attempt was made yet, so all the rest of it is as it was in the beginning.
            board = board.put(dependent, StageState(Phase.WAITING if unmet else Phase.READY, unmet))
            if not unmet:
                freed.append(dependent)
    failed = event.status in (StageStatus.FAILED, StageStatus.LOST)
    ended = RunState(
        state.verb,
        state.shape,
        state.begun,
        state.concurrency,
        state.fail_fast,
        board,
        state.ready,
        state.head,
        state.running - (before.phase is Phase.RUNNING),
        state.unended - 1,
        state.cancelled_by,
        (*state.failed, event.stage) if failed and not outline.best_effort else state.failed,
        (*state.failed_best_effort, event.stage) if failed and outline.best_effort else state.failed_best_effort,
        state.skipped + (event.status is StageStatus.SKIPPED and bool(event.cause)),
        state.cancelled + (event.status is StageStatus.CANCELLED),
        state.ended,
    )
    return _queued(ended, tuple(freed)) if freed else ended


def _queued(state: RunState, places: tuple[int, ...]) -> RunState:
    # What has started is cut off here, so each stage is copied once per time that the queue's length passes it.
    return replace(state, ready=(*state.ready[state.head :], *places), head=0)


def _with(state: RunState, stage: str, **changes: Any) -> RunState:
    place = state.place(stage)
    return _moved(state, state.board.put(place, replace(state.board[place], **changes)), state.head, state.running)


def _moved(state: RunState, board: Board[StageState], head: int, running: int) -> RunState:
    # Spelt out: what `replace` does by names takes three times as long, and this happens several times per stage.
    return RunState(
        state.verb,
        state.shape,
        state.begun,
        state.concurrency,
        state.fail_fast,
        board,
        state.ready,
        head,
        running,
        state.unended,
        state.cancelled_by,
        state.failed,
        state.failed_best_effort,
        state.skipped,
        state.cancelled,
        state.ended,
    )
