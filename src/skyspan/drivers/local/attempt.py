"""One attempt at a stage as a task: its timeout, its stop, and how its end is told."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable

from skyspan.contracts.context import Clock
from skyspan.contracts.engine import Journal, Outcome, Performer
from skyspan.engine import BeginAttempt
from skyspan.model.error import (
    FencedError,
    InternalError,
    SkyspanError,
    StageError,
    StageTimeoutError,
    StoreUnavailableError,
)
from skyspan.model.event import AttemptFailed, StageEnded
from skyspan.model.lifecycle import StageStatus


class Attempt:
    """A running attempt. `run` ends with an outcome whatever happens inside; `store_failure` is set when that was a
    store that could not be written."""

    def __init__(self, begin: BeginAttempt, performer: Performer, journal: Journal, clock: Clock) -> None:
        self.stage, self.number = begin.stage, begin.attempt
        self._timeout_s = begin.timeout_s
        self._performer, self._journal, self._clock = performer, journal, clock
        self._task: asyncio.Task[Outcome] | None = None
        self._timed_out = False
        self._stopped = False
        self.store_failure: StoreUnavailableError | FencedError | None = None

    async def run(self, stopped_reason: Callable[[], str]) -> Outcome:
        """Perform it to its end. `stopped_reason` words the end of an attempt that was stopped."""
        self._task = asyncio.create_task(self._performer.perform(self.stage, self.number, self._journal))
        if self._stopped:
            self._task.cancel()
        timer = None if self._timeout_s is None else asyncio.create_task(self._expire(self._timeout_s))
        try:
            await asyncio.wait({self._task})
        finally:
            if timer is not None:
                timer.cancel()
        return self._outcome(self._task, stopped_reason)

    def stop(self) -> None:
        """Stop it in order; once more: at once. One that is being stopped for its timeout already is left to that."""
        first, self._stopped = not self._stopped, True
        if self._task is None or (first and self._timed_out):
            return
        if first:
            self._task.cancel()
        else:
            # The first one must have arrived: two cancellations of a task in one turn of the loop are one.
            asyncio.get_running_loop().call_soon(self._task.cancel)

    async def _expire(self, timeout_s: float) -> None:
        await self._clock.sleep(timeout_s)
        if self._task is not None and not self._stopped:
            self._timed_out = True
            self._task.cancel()

    def _outcome(self, task: asyncio.Task[Outcome], stopped_reason: Callable[[], str]) -> Outcome:
        if task.cancelled():
            if self._timed_out:
                return self._failed(self._timeout())
            if self._stopped:
                return self._ended(StageStatus.CANCELLED, stopped_reason())
            return self._bug(InternalError(f"{self.stage} cancelled itself", hint=_REPORT))
        error = task.exception()
        if isinstance(error, StoreUnavailableError | FencedError):
            self.store_failure = error
            return self._ended(StageStatus.CANCELLED, error.summary)
        if isinstance(error, SkyspanError):
            return self._failed(self._timeout(error) if self._timed_out else _as_stage_error(error))
        if error is not None:
            return self._bug(internal_error(self.stage, error))
        return self._checked(task.result())

    def _checked(self, outcome: Outcome) -> Outcome:
        event = outcome.event
        if (event.stage, event.attempt) != (self.stage, self.number):
            said = f"attempt {self.number} of {self.stage} reported as attempt {event.attempt} of {event.stage}"
            return self._bug(InternalError(said, hint=_REPORT))
        if isinstance(event, StageEnded) and not event.status.ended:
            return self._bug(InternalError(f"{self.stage} ended as {event.status.value}", hint=_REPORT))
        if self._timed_out and isinstance(event, AttemptFailed):
            timeout = self._failed(self._timeout(StageError.restore(event.error)))
            return Outcome(timeout.event, outcome.put, outcome.removed)
        return outcome

    def _timeout(self, last: SkyspanError | None = None) -> StageTimeoutError:
        return StageTimeoutError(
            f"{self.stage} did not end within {self._timeout_s:g} s and was stopped",
            detail="" if last is None else str(last),
            hint=f"raise `timeout` of stage {self.stage}, or look in its log for what it waited for",
        )

    def _failed(self, error: StageError) -> Outcome:
        return Outcome(AttemptFailed(self.stage, self.number, error.record()))

    def _bug(self, error: InternalError) -> Outcome:
        return self._ended(StageStatus.FAILED, error.summary, error)

    def _ended(self, status: StageStatus, reason: str, error: StageError | None = None) -> Outcome:
        record = None if error is None else error.record()
        return Outcome(StageEnded(self.stage, self.number, status, reason=reason, error=record))


_REPORT = "this is a bug of the provider or of Skyspan: please report it with this text"


def _as_stage_error(error: SkyspanError) -> StageError:
    if isinstance(error, StageError):
        return error
    return StageError(error.summary, detail=error.detail, hint=error.hint)


def internal_error(stage: str, error: BaseException) -> InternalError:
    """The error that tells a person about a bug: what escaped, and from which line."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}\n" if frames else ""
    last = "".join(traceback.format_exception_only(error)).strip()
    return InternalError(
        f"{stage} broke on an unexpected {type(error).__name__}", detail=f"{place}{last}", hint=_REPORT
    )
