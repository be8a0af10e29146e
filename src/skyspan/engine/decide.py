"""The one brain: what follows from what happened. Pure: no await, no clock, no chance.

The same function runs in the local driver, inside a distributed workflow, and in the simulator that tests it.
"""

from __future__ import annotations

from collections.abc import Mapping

from skyspan.engine.effect import BeginAttempt, Effect, Finish, Step, StopAttempt, Wake
from skyspan.engine.retry import pause_before_next
from skyspan.engine.state import Phase, RunState, StageState, evolve, releases
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
    StagePlanned,
    StageProgressed,
    StageStarted,
)
from skyspan.model.lifecycle import RunStatus, StageStatus


def decide(state: RunState, event: Event) -> Step:
    """What to record and to do, now that `event` happened.

    An event that cannot belong to `state` any more (an attempt that is over, a run that has ended) gives a step
    without events. Raises ValueError for a RunStarted whose stages wait for each other.
    """
    if not _timely(state, event):
        return Step(state)
    draft = _Draft(state)
    draft.record(event)
    match event:
        case RunStarted():
            draft.go_on()
        case StageEnded():
            draft.settle(event)
            draft.go_on()
        case AttemptFailed():
            draft.retry_or_fail(event)
            draft.go_on()
        case RetryDue():
            draft.go_on()
        case CancelRequested():
            draft.cancel()
            draft.go_on()
        case _:
            pass
    return draft.step()


def _timely(state: RunState, event: Event) -> bool:
    match event:
        case RunStarted():
            return not state.begun
        case CancelRequested():
            return state.begun and state.ended is None
        case RetryDue():
            stage = _stage(state, event.stage)
            return stage is not None and stage.phase is Phase.PAUSED and event.attempt == stage.attempt + 1
        case StagePlanned() | EffectIntended() | StageProgressed() | StageEnded() | AttemptFailed():
            stage = _stage(state, event.stage)
            return stage is not None and stage.phase is Phase.RUNNING and event.attempt == stage.attempt
        case _:
            # What only the engine itself decides: starts, scheduled retries, the run's end.
            return False


def _stage(state: RunState, name: str) -> StageState | None:
    return state.stage(name) if name in state.shape.index else None


class _Draft:
    """A step while it is being put together."""

    def __init__(self, state: RunState) -> None:
        self._state = state
        self._events: list[Event] = []
        self._effects: list[Effect] = []

    def step(self) -> Step:
        return Step(self._state, tuple(self._events), tuple(self._effects))

    def record(self, event: Event) -> None:
        self._state = evolve(self._state, event)
        self._events.append(event)

    def go_on(self) -> None:
        """Start what is ready while there is room; end the run when nothing is left."""
        state, head = self._state, self._state.head
        while not state.closing and state.running < state.concurrency and head < len(state.ready):
            place = state.ready[head]
            head += 1
            if state.board[place].phase is Phase.READY:
                outline = state.shape.outlines[place]
                attempt = state.board[place].attempt + 1
                self.record(StageStarted(outline.name, attempt))
                self._effects.append(BeginAttempt(outline.name, attempt, outline.timeout_s))
                state, head = self._state, self._state.head
        if not state.unended and state.ended is None:
            ended = RunEnded(*_result(state))
            self.record(ended)
            self._effects.append(Finish(ended.status, ended.reason))

    def settle(self, ended: StageEnded) -> None:
        """Draw the consequences of an end: skip what cannot go on, and everything when the run fails fast."""
        self._skip_after(ended)
        state = self._state
        if state.fail_fast and state.failed == (ended.stage,):
            self._give_up(ended.stage)

    def retry_or_fail(self, failure: AttemptFailed) -> None:
        outline = self._state.outline(failure.stage)
        pause = None if self._state.closing else pause_before_next(outline, failure.attempt, failure.error)
        if pause is None:
            self._fail(failure.stage, failure.error)
            return
        following = failure.attempt + 1
        self.record(RetryScheduled(failure.stage, following, pause))
        self._effects.append(Wake(failure.stage, following, pause))

    def cancel(self) -> None:
        """End what has not begun; stop what runs. Asked again, only the latter, harder."""
        for outline, stage in zip(self._state.shape.outlines, self._state.board, strict=True):
            if stage.phase is Phase.RUNNING:
                self._effects.append(StopAttempt(outline.name, stage.attempt))
            elif stage.phase is not Phase.ENDED:
                ended = StageStatus.CANCELLED
                self.record(StageEnded(outline.name, stage.attempt, ended, reason=_unbegun(stage), error=stage.error))

    def _fail(self, stage: str, error: Mapping[str, str]) -> None:
        attempt = self._state.stage(stage).attempt
        reason = error.get("summary", "failed")
        ended = StageEnded(stage, attempt, StageStatus.FAILED, reason=reason, error=error)
        self.record(ended)
        self.settle(ended)

    def _skip_after(self, ended: StageEnded) -> None:
        """Skip everything that waits for a stage that did not end well, through to the last; each names the root."""
        state = self._state
        pending = [ended]
        while pending:
            end = pending.pop()
            place = state.place(end.stage)
            if releases(state.shape.outlines[place], end):
                continue
            cause = end.cause or end.stage
            for dependent in state.shape.dependents[place]:
                stage = self._state.board[dependent]
                if stage.phase is Phase.WAITING:
                    name = state.shape.outlines[dependent].name
                    skipped = StageEnded(name, stage.attempt, StageStatus.SKIPPED, _why(state, cause), cause)
                    self.record(skipped)
                    pending.append(skipped)

    def _give_up(self, cause: str) -> None:
        """Nothing new starts after the first failure: end what waits to be tried again, skip what has not begun."""
        outlines = self._state.shape.outlines
        for place, stage in enumerate(self._state.board):
            if stage.attempt and stage.phase in (Phase.PAUSED, Phase.READY):
                self._fail(outlines[place].name, stage.error or {})
        # Looked at afresh: those failures may have skipped some stages and freed others.
        for place, stage in enumerate(self._state.board):
            if stage.phase in (Phase.WAITING, Phase.READY):
                reason = f"{_why(self._state, cause)}, and the run stops at the first failure"
                self.record(StageEnded(outlines[place].name, 0, StageStatus.SKIPPED, reason, cause))


def _why(state: RunState, cause: str) -> str:
    status = state.stage(cause).status if cause in state.shape.index else StageStatus.FAILED
    said = {StageStatus.CANCELLED: "was cancelled", StageStatus.LOST: "was lost", StageStatus.SKIPPED: "was skipped"}
    return f"{cause} {said.get(status, 'failed')}"


def _unbegun(stage: StageState) -> str:
    if stage.error is None:
        return "cancelled before it began"
    return f"cancelled while waiting to be tried again, after: {stage.error.get('summary', 'a failure')}"


def _result(state: RunState) -> tuple[RunStatus, str]:
    if state.cancelled:
        by = f" by {state.cancelled_by}" if state.cancelled_by else ""
        return RunStatus.CANCELLED, f"cancelled{by}"
    if state.failed:
        skipped = f", {state.skipped} skipped" if state.skipped else ""
        return RunStatus.FAILED, f"{_names(state.failed)} failed{skipped}"
    if state.failed_best_effort:
        return RunStatus.DEGRADED, f"{_names(state.failed_best_effort)} failed (best effort)"
    return RunStatus.SUCCEEDED, ""


def _names(stages: tuple[str, ...], shown: int = 3) -> str:
    more = f" and {len(stages) - shown} more" if len(stages) > shown else ""
    return ", ".join(stages[:shown]) + more
