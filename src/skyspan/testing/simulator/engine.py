"""A simulated engine process: decides with the pure engine, writes under its lease, dies or stands still when told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from skyspan.contracts.store import Batch, Lease, StageRecord
from skyspan.engine import NEW, BeginAttempt, Effect, StopAttempt, Wake
from skyspan.model.error import FencedError, Retry, StageError
from skyspan.model.event import AttemptFailed, EffectIntended, Event, RetryDue, StageEnded
from skyspan.model.lifecycle import StageStatus
from skyspan.model.value import OutputValue
from skyspan.testing.memory_store import MemoryStore
from skyspan.testing.simulator.child import Child, Surroundings
from skyspan.testing.simulator.ground import ADDRESS, LEASE_S, RUN_ID, START, Decide, Restore, at_once
from skyspan.testing.simulator.recovery import owed
from skyspan.testing.simulator.result import Simulated
from skyspan.testing.simulator.scenario import Crash, Found, Moment, Scenario, Stall


class Around(Surroundings, Protocol):
    """The world, as an engine process sees it."""

    scenario: Scenario
    decide: Decide
    restore: Restore
    result: Simulated
    store: MemoryStore
    now: float
    children: dict[tuple[str, int], Child]
    engine: SimulatedEngine | None

    def strike(self) -> Crash | Stall | None:
        """What strikes at this decision."""
        ...

    def crashed(self, *, reboot: bool) -> None:
        """This engine is dead."""
        ...

    def stalled(self, stall: Stall, engine: SimulatedEngine) -> None:
        """This engine stands still."""
        ...

    def echo(self, event: Event) -> None:
        """A report may come once more."""
        ...

    def remember_end(self, event: StageEnded | AttemptFailed) -> None:
        """So the latest attempt at a stage ended."""
        ...


class SimulatedEngine:
    """One engine process from its start to its death."""

    def __init__(self, world: Around, lease: Lease) -> None:
        self._world, self._lease = world, lease
        self._state = NEW
        self._alive, self._asleep = True, False
        self._missed: list[Callable[[], object]] = []
        """What arrived while it stood still."""
        self._unwritten: list[tuple[float, Event]] = []
        self._records: list[StageRecord] = []
        self._intending: list[Child] = []
        self._stops: list[StopAttempt] = []
        self._writing = False
        self._attempts: dict[str, Child] = {}

    def recover(self, events: Sequence[Event]) -> None:
        """Go on where another engine stopped, knowing its recorded events alone."""
        if not events:
            self.receive(self._world.scenario.started)
            return
        self._state = self._world.restore(events)
        for effect in owed(self._state):
            if isinstance(effect, BeginAttempt):
                self._find(effect)
            else:
                self._perform(effect)
        self._carry_out_stops()

    def wake(self) -> None:
        """Go on after standing still, as if nothing had happened."""
        self._asleep = False
        missed, self._missed = self._missed, []
        for action in missed:
            action()
        self._write_soon()

    def receive(self, event: Event) -> bool:
        """Decide what follows; whether the event counted."""
        if not self._alive:
            return False
        if self._asleep:
            self._missed.append(partial(self.receive, event))
            return False
        step = self._world.decide(self._state, event)
        if not step.events:
            self._world.result.dropped += 1
            return False
        strike = self._world.strike() if self._world.engine is self else None
        if isinstance(strike, Crash) and strike.moment is Moment.BEFORE_WRITE:
            self._die(strike)
            return False
        self._state = step.state
        now = self._world.now
        self._unwritten += [(now, item) for item in step.events]
        if isinstance(strike, Crash) and strike.moment is Moment.AFTER_WRITE:
            self._write()
            self._die(strike)
            return True
        for effect in step.effects:
            self._perform(effect)
        if isinstance(strike, Crash):
            self._die(strike)
        elif isinstance(strike, Stall):
            # From here on it neither writes nor hears.
            self._asleep = True
            self._lease = self._renewed()
            self._world.stalled(strike, self)
        self._write_soon()
        return True

    def report(self, event: StageEnded | AttemptFailed, child: Child) -> None:
        """An attempt has ended."""
        if not self._alive:
            return
        if self._asleep:
            self._missed.append(partial(self.report, event, child))
            return
        if isinstance(event, StageEnded) and event.status is StageStatus.SUCCEEDED:
            self._records.append(self._record(event))
        if self._world.engine is self:
            self._world.remember_end(event)
        self._attempts.pop(child.name, None)
        self._world.echo(event)
        self.receive(event)

    def intend(self, event: EffectIntended, child: Child) -> None:
        """An attempt wants to act: it may, once this is durable."""
        if self._asleep:
            self._missed.append(partial(self.intend, event, child))
            return
        self._intending.append(child)
        if not self.receive(event) and self._alive and child in self._intending:
            self._intending.remove(child)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case BeginAttempt():
                self._begin(effect)
            case StopAttempt():
                # Only once the request to cancel is durable: a process that was stopped for a reason that nobody
                # remembers would look like one that failed. (Seed 1531.)
                self._stops.append(effect)
            case Wake():
                due = RetryDue(effect.stage, effect.attempt)
                self._world.later(effect.delay_s, partial(self._due, due))
            case _:
                pass

    def _begin(self, effect: BeginAttempt, *, intended: bool = False) -> None:
        """Make the attempt; one that was `intended` by an engine that is dead acts without a second intent."""
        fate = self._world.scenario.fate(effect.stage, effect.attempt)
        child = Child(effect.stage, effect.attempt, fate, effect.timeout_s, self, self._world)
        self._attempts[effect.stage] = child
        child.act_again() if intended else child.begin()

    def _find(self, effect: BeginAttempt) -> None:
        """Look for what is left of an attempt that another engine began."""
        if not self._state.stage(effect.stage).intent:
            # It only looked, so it is simply made again.
            self._begin(effect)
            return
        child = self._world.children.get((effect.stage, effect.attempt))
        if child is not None and child.outlives:
            child.owner = self
            self._attempts[effect.stage] = child
            if child.outcome is not None:
                self._world.later(0.0, partial(self.report, child.outcome, child))
            return
        self._world.later(0.0, partial(self._settle, effect, child))

    def _settle(self, effect: BeginAttempt, child: Child | None) -> None:
        """Decide by looking at the real thing how an attempt ended of which no process is left."""
        found = self._world.scenario.fate(effect.stage, effect.attempt).found
        if child is None:
            found = Found.ABSENT
        elif found is Found.ABSENT and not child.cut_off:
            found = Found.DONE
        event: StageEnded | AttemptFailed
        match found:
            case Found.DONE:
                event = StageEnded(effect.stage, effect.attempt, StageStatus.SUCCEEDED, outputs=("value",))
                self._records.append(self._record(event))
            case Found.ABSENT:
                self._begin(effect, intended=True)
                return
            case Found.BROKEN:
                error = StageError("it was cut off before it did anything", retry=Retry.NOW)
                event = AttemptFailed(effect.stage, effect.attempt, error.record())
            case Found.IN_DOUBT:
                event = StageEnded(effect.stage, effect.attempt, StageStatus.LOST, reason="in doubt")
        self._world.remember_end(event)
        self.receive(event)

    def _due(self, event: RetryDue) -> None:
        if self._alive:
            self._world.echo(event)
            self.receive(event)

    def _write_soon(self) -> None:
        if not self._alive or self._asleep or self._writing:
            return
        if not self._world.scenario.write_s:
            self._write()
        else:
            self._writing = True
            self._world.later(self._world.scenario.write_s, self._written)

    def _written(self) -> None:
        self._writing = False
        if self._alive and not self._asleep:
            self._write()

    def _write(self) -> None:
        if not self._unwritten:
            return
        entries, self._unwritten = tuple(self._unwritten), []
        records, self._records = tuple(self._records), []
        try:
            at_once(self._world.store.append(RUN_ID, self._lease, Batch(entries, records)))
        except FencedError:
            self._world.result.refused_writes += 1
            self._alive = False
            self._attempts_die()
            return
        self._world.result.epochs += [self._lease.epoch] * len(entries)
        children, self._intending = self._intending, []
        for child in children:
            child.go_ahead()
        self._carry_out_stops()

    def _carry_out_stops(self) -> None:
        stops, self._stops = self._stops, []
        for stop in stops:
            child = self._attempts.get(stop.stage)
            if child is not None and child.owner is self:
                child.stop()

    def _die(self, crash: Crash) -> None:
        self._alive = False
        self._lease = self._renewed()
        self._attempts_die()
        self._world.crashed(reboot=crash.reboot)

    def _attempts_die(self) -> None:
        """What only looked dies with its engine; what acts is a process of its own."""
        for child in self._attempts.values():
            if not child.outlives and child.owner is self:
                child.die()

    def _renewed(self) -> Lease:
        try:
            return at_once(self._world.store.renew(self._lease, START + self._world.now + LEASE_S))
        except FencedError:
            return self._lease

    def _record(self, event: StageEnded) -> StageRecord:
        outputs = {name: OutputValue(event.attempt) for name in event.outputs}
        return StageRecord(ADDRESS.stage(event.stage), "simulated", {}, present=True, outputs=outputs)
