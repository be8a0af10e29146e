"""The embedded driver's face: begins a run, carries it out, passes on requests to cancel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from skyspan.contracts.context import Clock
from skyspan.contracts.engine import EventSink, Ledger, Performer, Redact
from skyspan.contracts.store import Lease, RunRecord
from skyspan.drivers.local.execution import Execution, StopLeft, Surroundings
from skyspan.drivers.local.interrupted import Aim
from skyspan.drivers.local.pace import Pace
from skyspan.engine.faults import Fault
from skyspan.model.error import FencedError
from skyspan.model.event import RecordedEvent, RunEnded, RunStarted


def _unchanged(text: str) -> str:
    return text


async def _nothing_left() -> None:
    pass


def _pass(_point: str) -> None:
    pass


class LocalDriver:
    """Performs the engine's decisions in this process, one run at a time.

    `sinks` are told every event once it is durable; `redact` takes known secrets out of events before they are stored;
    `reached` is told of every crash point.
    """

    def __init__(
        self,
        store: Ledger,
        clock: Clock,
        sinks: Sequence[EventSink] = (),
        *,
        redact: Redact = _unchanged,
        pace: Pace | None = None,
        reached: Callable[[str], None] = _pass,
    ) -> None:
        self._around = Surroundings(store, clock, tuple(sinks), redact, pace or Pace(), reached)
        self._execution: Execution | None = None
        self._cancelled_early: str | None = None
        self.fenced = False
        """Whether the run was taken over by somebody else."""

    async def run(self, run: RunRecord, lease: Lease, started: RunStarted, performer: Performer) -> RunEnded:
        """Carry out a new run, which is created in the store first; see `contracts.engine.Driver`."""
        execution = self._begin(run, lease, performer)
        try:
            self._around.reached(Fault.RUN_BEFORE)
            await self._around.store.begin_run(run, lease)
            self._around.reached(Fault.RUN_AFTER)
            if self._cancelled_early is not None:
                execution.cancel(self._cancelled_early)
            return await execution.carry_out(started)
        finally:
            self._end(execution)

    async def resume(
        self,
        run: RunRecord,
        lease: Lease,
        recorded: Sequence[RecordedEvent],
        performer: Performer,
        aim: Aim,
        stop_left: StopLeft = _nothing_left,
    ) -> RunEnded:
        """Bring a run to its end that another engine began; `recorded` are all of its events so far.

        To cancel it, what that engine left running is ended by `stop_left`, once the request is durable. Otherwise
        attempts without an outcome are performed once more under the number they had; how is the performer's to know.
        Ends as `run` does."""
        execution = self._begin(run, lease, performer)
        try:
            if self._cancelled_early is not None:
                aim = Aim.cancel(self._cancelled_early)
            return await execution.carry_on(recorded, aim, stop_left)
        finally:
            self._end(execution)

    async def assured(self) -> None:
        """Return while the lease is held for certain; renew it first where that is in doubt.

        Raises FencedError when it was taken over, StoreUnavailableError when nobody can say."""
        if self._execution is None:
            raise FencedError("no run is going on, so nothing may be changed")
        await self._execution.assured()

    def _begin(self, run: RunRecord, lease: Lease, performer: Performer) -> Execution:
        if self._execution is not None:
            msg = "this driver is busy: make one per run"
            raise RuntimeError(msg)
        self._execution = Execution(self._around, run, lease, performer)
        return self._execution

    def _end(self, execution: Execution) -> None:
        self.fenced = execution.fenced
        self._execution, self._cancelled_early = None, None

    def cancel(self, requested_by: str) -> None:
        """Stop the run in order; the second time, at once. Before it has begun: it starts nothing."""
        if self._execution is not None:
            self._execution.cancel(requested_by)
        else:
            self._cancelled_early = requested_by
