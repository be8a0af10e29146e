"""One run being carried out: event, decision, one transaction, effects; until it has ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from skyspan.contracts.context import Clock
from skyspan.contracts.engine import EventSink, Ledger, Performer, Redact
from skyspan.contracts.store import Batch, Lease, RunRecord, StageRecord
from skyspan.drivers.local.attempt import Attempt
from skyspan.drivers.local.interrupted import Aim, due
from skyspan.drivers.local.pace import Pace
from skyspan.drivers.local.recorder import Entry, Recorder
from skyspan.drivers.local.watch import keep_lease, renew, watch_for_cancel
from skyspan.engine import NEW, BeginAttempt, Effect, Finish, StopAttempt, Wake, decide, restore
from skyspan.engine.faults import Fault
from skyspan.engine.masking import masked_event
from skyspan.model.address import StageAddress
from skyspan.model.error import FencedError, SkyspanError, StoreUnavailableError
from skyspan.model.event import (
    CancelRequested,
    EffectIntended,
    Event,
    RecordedEvent,
    RetryDue,
    RunEnded,
    RunStarted,
)
from skyspan.model.lifecycle import RunStatus

_log = logging.getLogger(__name__)

StopLeft: TypeAlias = Callable[[], Coroutine[Any, Any, None]]
"""Stops what an engine that is dead left running of the run."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every execution of a driver shares."""

    store: Ledger
    clock: Clock
    sinks: tuple[EventSink, ...]
    redact: Redact
    pace: Pace
    reached: Callable[[str], None]


class Execution:
    """A run from its first event to its last.

    `_failure` is why it cannot go on as decided: the store (then it is cancelled in order), a lease that was lost, or a
    bug of this driver (then attempts are stopped and nothing more is recorded).
    """

    def __init__(self, around: Surroundings, run: RunRecord, lease: Lease, performer: Performer) -> None:
        self._around, self._run, self._performer = around, run, performer
        self.reached = around.reached
        self.lease = lease
        self.held_until = around.clock.monotonic() + lease.expires_at - around.clock.now()
        self._aim = Aim.finish()
        self._state = NEW
        self._sinks = list(around.sinks)
        self._seq = 0
        self._attempts: dict[str, Attempt] = {}
        self._stops: list[StopAttempt] = []
        """Stops whose reason is not durable yet."""
        self._stopping: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._over = asyncio.Event()
        self._ended: RunEnded | None = None
        self._failure: Exception | None = None
        self._cut_off = False
        self._early_cancel: str | None = None
        self._cancelled_here = False
        self._recorder = Recorder(self._write, self._written, self.give_up, around.clock, around.pace.linger_s)

    async def carry_out(self, started: RunStarted) -> RunEnded:
        """Run to the end; see `contracts.engine.Driver.run`."""
        self._watch()
        self.report(started)
        if self._early_cancel is not None:
            self.report(CancelRequested(self._early_cancel))
        return await self._to_the_end()

    async def carry_on(self, recorded: Sequence[RecordedEvent], aim: Aim, stop_left: StopLeft) -> RunEnded:
        """Bring a run to its end that another engine began; see `LocalDriver.resume`."""
        self._state = restore(item.event for item in recorded)
        if self._state.ended is not None:
            return self._state.ended
        self._seq, self._aim = recorded[-1].seq, aim
        begun = self._state
        self._watch()
        for event in aim.opening(begun):
            number = self.report(event)
            if isinstance(event, CancelRequested) and number is not None and not aim.performs("apply"):
                await self._stop_left(number, stop_left)
        for effect in due(begun, recorded, self._around.clock.now()):
            if aim.performs(begun.stage(effect.stage).intent) if isinstance(effect, BeginAttempt) else aim.finishes:
                self._perform(effect)
        return await self._to_the_end()

    async def _stop_left(self, number: int, stop_left: StopLeft) -> None:
        """Stop what another engine started, once it is durable why; asked once more meanwhile, at once."""
        try:
            await self._recorder.durable(number)
            self._stopping = asyncio.create_task(stop_left())
            await asyncio.wait({self._stopping})
            if not self._stopping.cancelled():
                self._stopping.result()
        except BaseException:
            if self._stopping is not None and not self._stopping.done():
                self._stopping.cancel()
                await asyncio.wait({self._stopping})
            await self._watch_no_more()
            raise

    async def assured(self) -> None:
        """The lease is held; see `LocalDriver.assured`."""
        if isinstance(self._failure, FencedError):
            raise self._failure
        clock = self._around.clock
        # Either clock may be wrong: one stands still while the machine sleeps, the other can be set.
        if clock.monotonic() >= self.held_until or clock.now() >= self.lease.expires_at:
            await renew(self, self._around.store, clock, self._around.pace)

    @property
    def fenced(self) -> bool:
        """Whether somebody else took the run over."""
        return isinstance(self._failure, FencedError)

    async def _to_the_end(self) -> RunEnded:
        interrupted = await self._until_over()
        await self._watch_no_more()
        if not self._cut_off:
            await self._finish_writing()
        if isinstance(self._failure, FencedError):
            return RunEnded(RunStatus.LOST, self._failure.summary)
        if self._failure is not None:
            raise self._failure
        if interrupted:
            raise asyncio.CancelledError
        return self._ended or RunEnded(RunStatus.LOST, "the run ended without a decision")

    def cancel(self, requested_by: str) -> None:
        """Stop in order; the second time, at once."""
        self._cancelled_here = True
        if self._stopping is not None:
            self._stopping.cancel()
        if not self._state.begun:
            self._early_cancel = requested_by
        elif self._cut_off:
            for attempt in self._attempts.values():
                attempt.stop()
        else:
            self.report(CancelRequested(requested_by))

    def report(self, event: Event, put: StageRecord | None = None, removed: StageAddress | None = None) -> int | None:
        """Decide what follows, queue it to be written, begin the effects.

        Attempts begin before the write is durable: they only read until their own intent is, and that comes after in
        the same order. They are stopped after it: a process that was stopped for a reason that nobody remembers would
        look like one that failed. None when the event came too late to count; else the number to wait for.
        """
        if self._cut_off:
            return None
        step = decide(self._state, masked_event(event, self._around.redact))
        if not step.events:
            return None
        self._state = step.state
        now = self._around.clock.now()
        events = tuple(self._aim.ending(item) if isinstance(item, RunEnded) else item for item in step.events)
        # Winding up asks for no new stages, but what runs comes to its own end.
        stopping = self._aim.finishes or self._cancelled_here
        stops = tuple(item for item in step.effects if isinstance(item, StopAttempt) and stopping)
        # A store that takes nothing any more is not waited for.
        broken = self._recorder.failure is not None
        self._stops += () if broken else stops
        number = self._recorder.add(Entry(tuple((now, item) for item in events), put, removed, stops))
        for effect in step.effects:
            if not isinstance(effect, StopAttempt) or (stopping and broken):
                self._perform(effect)
        return number

    async def record(self, event: Event, put: StageRecord | None = None, removed: StageAddress | None = None) -> None:
        """Journal: durable when it returns."""
        if self._failure is not None:
            raise self._failure
        intends = isinstance(event, EffectIntended)
        if intends:
            self.reached(Fault.INTENT_BEFORE)
        number = self.report(event, put, removed)
        if number is None:
            msg = f"{type(event).__name__} of {getattr(event, 'stage', '')} came after its attempt was over"
            raise RuntimeError(msg)
        await self._recorder.durable(number)
        if intends:
            self.reached(Fault.INTENT_AFTER)

    def note(self, event: Event) -> None:
        """Journal: written soon."""
        if self._cut_off:
            return
        step = decide(self._state, masked_event(event, self._around.redact))
        if step.events:
            self._state = step.state
            now = self._around.clock.now()
            self._recorder.note(Entry(tuple((now, item) for item in step.events)))

    def give_up(self, error: Exception) -> None:
        """End the run in order although it cannot go on: the store failed, the lease is lost, or this is a bug."""
        first = self._failure is None
        self._failure = self._failure or error
        if isinstance(error, StoreUnavailableError):
            unwritten = dict.fromkeys(self._stops)
            if self._recorder.failure is not None:
                self._stops.clear()
            if first:
                # This stops all that runs once more, so what was to be stopped already is stopped but once.
                self.report(CancelRequested("skyspan: the store could not be written"))
            elif not self._stops:
                for stop in unwritten:
                    self._perform(stop)
            return
        if self._cut_off:
            return
        self._cut_off = True
        for attempt in self._attempts.values():
            attempt.stop()
        if not self._attempts:
            self._over.set()

    def _watch(self) -> None:
        around = self._around
        self._spawn(keep_lease(self, around.store, around.clock, around.pace))
        self._spawn(watch_for_cancel(self, self._run.id, around.store, around.clock, around.pace))

    async def _watch_no_more(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    async def _until_over(self) -> bool:
        interrupted = False
        while not self._over.is_set():
            try:
                await self._over.wait()
            except asyncio.CancelledError:
                interrupted = True
                self.cancel("an interrupt")
        return interrupted

    def _perform(self, effect: Effect) -> None:
        match effect:
            case BeginAttempt():
                begun = Attempt(effect, self._performer, self, self._around.clock)
                self._attempts[effect.stage] = begun
                self._spawn(self._attempt(begun))
            case StopAttempt():
                attempt = self._attempts.get(effect.stage)
                if attempt is not None and attempt.number == effect.attempt:
                    attempt.stop()
            case Wake():
                self._spawn(self._wake(effect))
            case Finish():
                self._ended = self._aim.ending(RunEnded(effect.status, effect.reason))
                self._over.set()

    async def _attempt(self, attempt: Attempt) -> None:
        outcome = await attempt.run(lambda: self._stopped_reason(attempt.stage))
        self.reached(Fault.OUTCOME)
        if attempt.store_failure is not None:
            # Before it is forgotten: what is decided now still counts it among those that run, and stops it.
            self.give_up(attempt.store_failure)
        del self._attempts[attempt.stage]
        self.report(outcome.event, outcome.put, outcome.removed)
        if self._cut_off and not self._attempts:
            self._over.set()

    async def _wake(self, wake: Wake) -> None:
        if wake.delay_s:
            await self._around.clock.sleep(wake.delay_s)
        self.report(RetryDue(wake.stage, wake.attempt))

    def _stopped_reason(self, stage: str) -> str:
        intent = self._state.stage(stage).intent
        return f"cancelled during {intent}" if intent else "cancelled before it changed anything"

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._reap)

    def _reap(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            # Nothing here raises on purpose: whatever did must end the run, or it would wait for ever.
            self.give_up(error)

    async def _write(self, batch: Batch) -> None:
        self.reached(Fault.COMMIT_BEFORE)
        await self._around.store.append(self._run.id, self.lease, batch)
        self.reached(Fault.COMMIT_AFTER)

    def _written(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            for at, event in entry.events:
                self._seq += 1
                self._tell(RecordedEvent(self._run.id, self._seq, at, event))
            for stop in entry.stops:
                if stop in self._stops:
                    self._stops.remove(stop)
                    self._perform(stop)

    def _tell(self, recorded: RecordedEvent) -> None:
        for sink in tuple(self._sinks):
            try:
                sink(recorded)
            except Exception:
                self._sinks.remove(sink)
                _log.warning("a listener of run %s failed and is not told any more", self._run.id, exc_info=True)

    async def _finish_writing(self) -> None:
        try:
            await self._recorder.drain()
        except (StoreUnavailableError, FencedError) as error:
            self._failure = self._failure or error
            recorded = "What happened since the last recorded event is not in the history"
        else:
            recorded = "The run's end could be recorded after all"
        if isinstance(self._failure, StoreUnavailableError):
            self._failure = _stopped(self._run, self._failure, recorded)


def _stopped(run: RunRecord, error: SkyspanError, recorded: str) -> StoreUnavailableError:
    found = "every stage that was touched is on record as begun, so the same command finds it again"
    hint = f"{recorded}; {found}. Make the store writable, then run the command once more."
    return StoreUnavailableError(
        f"{run.verb.value} of {run.deployment.name} was stopped, because the store cannot be written: {error.summary}",
        detail=error.detail,
        hint="\n".join(part for part in (error.hint, hint) if part),
    )
