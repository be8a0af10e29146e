"""The embedded driver's face: begins a run, carries it out, passes on requests to cancel."""

from __future__ import annotations

from collections.abc import Sequence

from skyspan.contracts.context import Clock
from skyspan.contracts.engine import EventSink, Ledger, Performer, Redact
from skyspan.contracts.store import Lease, RunRecord
from skyspan.drivers.local.execution import Execution, Surroundings
from skyspan.drivers.local.pace import Pace
from skyspan.model.event import RunEnded, RunStarted


def _unchanged(text: str) -> str:
    return text


class LocalDriver:
    """Performs the engine's decisions in this process, one run at a time.

    `sinks` are told every event once it is durable; `redact` takes known secrets out of events before they are stored.
    """

    def __init__(
        self,
        store: Ledger,
        clock: Clock,
        sinks: Sequence[EventSink] = (),
        *,
        redact: Redact = _unchanged,
        pace: Pace | None = None,
    ) -> None:
        self._around = Surroundings(store, clock, tuple(sinks), redact, pace or Pace())
        self._execution: Execution | None = None
        self._cancelled_early: str | None = None

    async def run(self, run: RunRecord, lease: Lease, started: RunStarted, performer: Performer) -> RunEnded:
        """Carry out a new run, which is created in the store first; see `contracts.engine.Driver`."""
        if self._execution is not None:
            msg = "this driver is busy: make one per run"
            raise RuntimeError(msg)
        self._execution = Execution(self._around, run, lease, performer)
        try:
            await self._around.store.begin_run(run, lease)
            if self._cancelled_early is not None:
                self._execution.cancel(self._cancelled_early)
            return await self._execution.carry_out(started)
        finally:
            self._execution, self._cancelled_early = None, None

    def cancel(self, requested_by: str) -> None:
        """Stop the run in order; the second time, at once. Before it has begun: it starts nothing."""
        if self._execution is not None:
            self._execution.cancel(requested_by)
        else:
            self._cancelled_early = requested_by
