"""Carries out a scenario around a real driver that is struck down again and again, each time followed by another one.

An engine that is struck stands still at its next write, before or after it: to the world it is dead. Another one waits
for its lease to expire and resumes the run from the events in the store. In the end all the dead awake, as after a
SIGCONT, and try to go on: whatever they write has to be refused, and nothing that they do may touch the real world.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from skyspan.contracts.context import Clock
from skyspan.contracts.engine import Driver, Journal, Outcome, Performer
from skyspan.contracts.store import Batch, DeploymentRecord, Lease, RunRecord, Store
from skyspan.model.error import SkyspanError
from skyspan.model.event import CancelRequested, EffectIntended, RecordedEvent, RunEnded
from skyspan.model.lifecycle import RunStatus
from skyspan.testing.fake_clock import FakeClock
from skyspan.testing.memory_store import MemoryStore
from skyspan.testing.simulator.driven import MakeDriver, outcome_of
from skyspan.testing.simulator.ground import ADDRESS, LEASE_S, RUN_ID
from skyspan.testing.simulator.result import Deed, Simulated
from skyspan.testing.simulator.scenario import Crash, Moment, Scenario, Stall
from skyspan.testing.simulator.world import needs

Resume: TypeAlias = Callable[[Driver, RunRecord, Lease, Sequence[RecordedEvent], Performer], Awaitable[RunEnded]]


STUCK_S = 60.0
"""Real seconds after which a run that takes milliseconds is given up."""


class Life:
    """An engine's: it goes on until it is struck, and again when everything is over."""

    def __init__(self) -> None:
        self.struck = asyncio.Event()
        self._awake = asyncio.Event()
        self._awake.set()

    def strike(self) -> None:
        """Stand still."""
        self.struck.set()
        self._awake.clear()

    def wake(self) -> None:
        """Go on, unaware."""
        self._awake.set()

    async def gate(self) -> None:
        """Return at once while it goes on."""
        await self._awake.wait()


class MortalStore:
    """An engine's handle on the store; at one of its writes it is struck."""

    def __init__(self, store: MemoryStore, life: Life, strike: Crash | Stall | None, result: Simulated) -> None:
        self._store, self._life, self._strike, self._result = store, life, strike, result
        self._events = 0

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._store, name)

        async def gated(*arguments: Any, **named: Any) -> Any:
            await self._life.gate()
            return await call(*arguments, **named)

        return gated

    async def append(self, run_id: str, lease: Lease, batch: Batch) -> None:
        """Write, unless this is where it is struck."""
        await self._life.gate()
        self._events += len(batch.events)
        due = self._strike is not None and self._events >= self._strike.step
        after = isinstance(self._strike, Crash) and self._strike.moment is not Moment.BEFORE_WRITE
        if due and not after:
            self._strike = None
            self._life.strike()
            await self._life.gate()
        try:
            await self._store.append(run_id, lease, batch)
        except SkyspanError:
            self._result.refused_writes += 1
            raise
        self._result.epochs += [lease.epoch] * len(batch.events)
        if due and after:
            self._strike = None
            self._life.strike()
            await self._life.gate()


class Doing:
    """What attempts have begun to do to the real world: processes that outlive their engine."""

    def __init__(self, scenario: Scenario, clock: Clock, result: Simulated) -> None:
        self.scenario, self.clock, self._result = scenario, clock, result
        self.needs = needs(scenario.started)
        self.failed: set[str] = set()
        self._running: dict[tuple[str, int], asyncio.Task[None]] = {}

    async def act(self, stage: str, attempt: int) -> None:
        """Do what the attempt does, or wait for the end of what does it already; cancelling stops it."""
        task = self._running.get((stage, attempt))
        if task is None:
            task = self._running[stage, attempt] = asyncio.create_task(self._act(stage, attempt))
        await asyncio.shield(task)

    async def stop(self, stage: str, attempt: int) -> None:
        """End it in order, or at once when cancelled meanwhile."""
        task = self._running.get((stage, attempt))
        try:
            await self.clock.sleep(self.scenario.fate(stage, attempt).stops_s)
        finally:
            if task is not None:
                task.cancel()

    async def stop_all(self) -> None:
        """End everything: the machine is restarted, or the run is cancelled by an engine that did not begin it."""
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _act(self, stage: str, attempt: int) -> None:
        deed = Deed(stage, attempt, self.clock.monotonic())
        self._result.deeds.append(deed)
        try:
            await self.clock.sleep(self.scenario.fate(stage, attempt).acts_s)
        finally:
            deed.ended = self.clock.monotonic()


class MortalPerformer:
    """Performs attempts for one engine; implements `contracts.engine.Performer`. `cut` are those to be carried on that
    had intended an effect."""

    def __init__(self, doing: Doing, life: Life, cut: frozenset[tuple[str, int]]) -> None:
        self._doing, self._life, self._cut = doing, life, cut

    async def perform(self, stage: str, attempt: int, journal: Journal) -> Outcome:
        """Look, intend, act, end; what was begun by another engine is only waited for."""
        doing, life = self._doing, self._life
        fate = doing.scenario.fate(stage, attempt)
        try:
            if (stage, attempt) not in self._cut:
                await doing.clock.sleep(fate.looks_s)
                await life.gate()
                if fate.end.touches:
                    await journal.record(EffectIntended(stage, attempt, "apply"))
                    await life.gate()
            if fate.end.touches:
                await doing.act(stage, attempt)
                await life.gate()
        except asyncio.CancelledError:
            await life.gate()
            doing.failed.add(stage)
            await doing.stop(stage, attempt)
            raise
        return outcome_of(stage, attempt, fate.end, doing.needs[stage], doing.failed)


def revive(scenario: Scenario, make_driver: MakeDriver, resume: Resume) -> Simulated:
    """Carry out the scenario; every strike of it hits the engine that is at work by then.

    Raises TimeoutError when the run does not come to an end."""
    return asyncio.run(asyncio.wait_for(_Revival(scenario, make_driver, resume).carry_out(), STUCK_S))


class _Revival:
    def __init__(self, scenario: Scenario, make_driver: MakeDriver, resume: Resume) -> None:
        self._scenario, self._make_driver, self._resume = scenario, make_driver, resume
        self._store, self._clock = MemoryStore(), FakeClock()
        self._result = Simulated(scenario)
        self._doing = Doing(scenario, self._clock, self._result)
        self._strikes = list(scenario.strikes)
        self._dead: list[tuple[Life, asyncio.Task[RunEnded]]] = []
        self._driver: Driver | None = None

    async def carry_out(self) -> Simulated:
        """The whole run."""
        await self._store.save_deployment(DeploymentRecord(ADDRESS))
        cancels = [asyncio.create_task(self._cancel(moment)) for moment in self._scenario.cancels_s]
        recorded: list[RecordedEvent] = []
        while True:
            life = Life()
            running = asyncio.create_task(self._engine(life, recorded))
            struck = asyncio.create_task(life.struck.wait())
            await asyncio.wait({running, struck}, return_when=asyncio.FIRST_COMPLETED)
            struck.cancel()
            if running.done():
                running.result()
                break
            self._driver = None
            self._dead.append((life, running))
            self._result.crashes += 1
            await self._clock.sleep(LEASE_S + 1.0)
            recorded = await self._events()
            if not recorded:
                # Nothing was touched: such a run is ended as lost by whoever finds it.
                break
        for cancel in cancels:
            cancel.cancel()
        await self._wake_the_dead()
        return await self._collected()

    async def _engine(self, life: Life, recorded: Sequence[RecordedEvent]) -> RunEnded:
        number = self._result.crashes + 1
        now = self._clock.now()
        lease = await self._store.acquire(Lease(ADDRESS, f"engine-{number}", 0, now + LEASE_S, RUN_ID), now)
        strike = self._strikes.pop(0) if self._strikes else None
        handle: Any = MortalStore(self._store, life, strike, self._result)
        store: Store = handle
        driver = self._driver = self._make_driver(store, self._clock)
        run = RunRecord(RUN_ID, ADDRESS, self._scenario.started.verb, epoch=lease.epoch)
        if not recorded:
            return await driver.run(run, lease, self._scenario.started, self._performer(life, recorded))
        self._result.take_overs += 1
        if any(isinstance(item.event, CancelRequested) for item in recorded):
            await self._doing.stop_all()
        return await self._resume(driver, run, lease, recorded, self._performer(life, recorded))

    def _performer(self, life: Life, recorded: Sequence[RecordedEvent]) -> MortalPerformer:
        intents = {(it.event.stage, it.event.attempt) for it in recorded if isinstance(it.event, EffectIntended)}
        return MortalPerformer(self._doing, life, frozenset(intents))

    async def _cancel(self, moment: float) -> None:
        await self._clock.sleep(moment)
        if self._driver is not None:
            self._driver.cancel("somebody")

    async def _wake_the_dead(self) -> None:
        for life, running in self._dead:
            life.wake()
            ended = await running
            if ended.status is not RunStatus.LOST and (await self._events())[-1].event != ended:
                msg = f"an engine that had lost its lease believes that the run has {ended.status.value}"
                raise AssertionError(msg)

    async def _collected(self) -> Simulated:
        self._result.recorded = await self._events()
        records = await self._store.stage_records(ADDRESS)
        self._result.outputs = {record.address.name: tuple(record.outputs) for record in records}
        return self._result

    async def _events(self) -> list[RecordedEvent]:
        return list(await self._store.events(RUN_ID, limit=1_000_000))
