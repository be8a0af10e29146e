"""Carries out a scenario around the pure engine: virtual time, a store in memory, engines that die and stand still."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import replace

from skyspan.contracts.store import DeploymentRecord, Lease, RunRecord
from skyspan.engine.decide import decide as real_decide
from skyspan.engine.state import restore as real_restore
from skyspan.model.error import RefusedError
from skyspan.model.event import AttemptFailed, CancelRequested, Event, RecordedEvent, RunStarted, StageEnded
from skyspan.model.lifecycle import StageStatus, Verb
from skyspan.testing.memory_store import MemoryStore
from skyspan.testing.simulator.child import Child
from skyspan.testing.simulator.engine import SimulatedEngine
from skyspan.testing.simulator.ground import ADDRESS, LEASE_S, RUN_ID, START, Decide, EventStore, Restore, at_once
from skyspan.testing.simulator.result import Deed, Simulated
from skyspan.testing.simulator.scenario import Crash, Scenario, Stall

_MOST_ACTIONS = 100_000


class StuckError(Exception):
    """The run did not come to an end."""


class World:
    """One scenario being carried out."""

    def __init__(self, scenario: Scenario, decide: Decide, restore: Restore) -> None:
        self.scenario, self.decide, self.restore = scenario, decide, restore
        self.result = Simulated(scenario)
        self.now = 0.0
        self.steps = 0
        self.store: MemoryStore = EventStore()
        self.children: dict[tuple[str, int], Child] = {}
        """Attempts that act or acted, by stage and number: what a keeper would find."""
        self.failed: set[str] = set()
        self._echo = random.Random(scenario.echo_seed)
        self._actions: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._strikes = list(scenario.strikes)
        self._after_cancel = scenario.after_cancel
        self._deeds: dict[int, Deed] = {}
        self._cancels = 0
        self._needs = needs(scenario.started)
        self.engine: SimulatedEngine | None = None

    def carry_out(self) -> Simulated:
        """Run to the end; raises StuckError when nothing is left to happen before it."""
        at_once(self.store.save_deployment(DeploymentRecord(ADDRESS)))
        lease = self._lease("engine-1")
        at_once(self.store.begin_run(RunRecord(RUN_ID, ADDRESS, self.scenario.started.verb, epoch=lease.epoch), lease))
        self.engine = SimulatedEngine(self, lease)
        for moment in self.scenario.cancels_s:
            self.later(moment, self._cancel)
        self.engine.receive(self.scenario.started)
        for _ in range(_MOST_ACTIONS):
            if not self._actions:
                break
            self.now, _, action = heapq.heappop(self._actions)
            action()
        self._collect()
        if self._actions:
            raise StuckError(f"still busy after {_MOST_ACTIONS} actions")
        return self.result

    def later(self, delay_s: float, action: Callable[[], None]) -> None:
        """Do it when that time has passed."""
        self._count += 1
        heapq.heappush(self._actions, (self.now + delay_s, self._count, action))

    def strike(self) -> Crash | Stall | None:
        """What strikes at this decision, if anything."""
        self.steps += 1
        if self._strikes and self._strikes[0].step <= self.steps:
            return self._strikes.pop(0)
        return None

    def crashed(self, *, reboot: bool) -> None:
        """The engine is dead: with `reboot` all that it had started, too. Another one takes over in time."""
        self.result.crashes += 1
        if reboot:
            for child in self.children.values():
                child.die()
                child.outcome = None
        self.engine = None
        self.later(LEASE_S / 2, self._try_too_early)
        self.later(LEASE_S + 1.0, self._take_over)

    def stalled(self, stall: Stall, engine: SimulatedEngine) -> None:
        """The engine stands still; another one takes over, then it goes on."""
        self.engine = None
        self.later(LEASE_S / 2, self._try_too_early)
        self.later(LEASE_S + 1.0, self._take_over)
        self.later(LEASE_S + 1.0 + stall.wakes_after_s, engine.wake)

    def echo(self, event: Event) -> None:
        """A report may be delivered once more, to whoever is in charge then."""
        if self.scenario.echoes and self._echo.random() < self.scenario.echoes:
            self.later(60.0 * self._echo.random() ** 2, lambda: self._deliver(event))

    def lacking(self, stage: str) -> str:
        """The first need of `stage` that failed."""
        return next((need for need in self._needs[stage] if need in self.failed), "")

    def remember_end(self, event: StageEnded | AttemptFailed) -> None:
        """Keep in mind how the latest attempt at a stage ended."""
        if isinstance(event, AttemptFailed) or event.status in (StageStatus.FAILED, StageStatus.LOST):
            self.failed.add(event.stage)
        else:
            self.failed.discard(event.stage)

    def acts(self, child: Child) -> None:
        """The witness sees an attempt begin to change the real world."""
        deed = Deed(child.name, child.attempt, self.now)
        self._deeds[id(child)] = deed
        self.result.deeds.append(deed)
        self.children[child.name, child.attempt] = child

    def acted(self, child: Child) -> None:
        """The witness sees it stop."""
        deed = self._deeds.pop(id(child))
        deed.ended, deed.cut_off = self.now, child.cut_off

    def _lease(self, owner: str) -> Lease:
        now = START + self.now
        return at_once(self.store.acquire(Lease(ADDRESS, owner, 0, now + LEASE_S, RUN_ID), now))

    def _try_too_early(self) -> None:
        try:
            self._lease("impatient")
        except RefusedError:
            self.result.refused_leases += 1
            return
        msg = "a lease was given away while it was held"
        raise AssertionError(msg)

    def _take_over(self) -> None:
        self.result.take_overs += 1
        lease = self._lease(f"engine-{self.result.take_overs + 1}")
        self.engine = SimulatedEngine(self, lease)
        self.engine.recover([item.event for item in self._events()])
        cancels, self._cancels = self._cancels, 0
        for _ in range(cancels):
            self._cancel()

    def _cancel(self) -> None:
        if self.engine is None:
            # The request waits in the store for whoever takes over.
            self._cancels += 1
            return
        if self._after_cancel is not None:
            strike, self._after_cancel = self._after_cancel, None
            self._strikes.insert(0, replace(strike, step=strike.step + self.steps))
        self._deliver(CancelRequested("somebody"))

    def _deliver(self, event: Event) -> None:
        if self.engine is not None:
            self.engine.receive(event)

    def _events(self) -> list[RecordedEvent]:
        return list(at_once(self.store.events(RUN_ID, limit=1_000_000)))

    def _collect(self) -> None:
        self.result.recorded = self._events()
        records = at_once(self.store.stage_records(ADDRESS))
        self.result.outputs = {record.address.name: tuple(record.outputs) for record in records}


def needs(started: RunStarted) -> dict[str, tuple[str, ...]]:
    """What each stage waits for; in a check, where nothing waits, nothing."""
    ordered = started.verb is not Verb.CHECK
    return {outline.name: outline.needs if ordered else () for outline in started.stages}


def simulate(scenario: Scenario, decide: Decide = real_decide, restore: Restore = real_restore) -> Simulated:
    """Carry out the scenario around `decide`, which may be a planted broken one."""
    return World(scenario, decide, restore).carry_out()
