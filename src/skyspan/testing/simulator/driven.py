"""Carries out a scenario around a real engine driver, on virtual time, and compares it with the pure simulation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from skyspan.contracts.context import Clock
from skyspan.contracts.engine import Driver, Journal, Outcome
from skyspan.contracts.store import DeploymentRecord, Lease, RunRecord, StageRecord, Store
from skyspan.model.event import AttemptFailed, EffectIntended, Event, RecordedEvent, StageEnded
from skyspan.model.lifecycle import StageStatus
from skyspan.model.value import OutputValue
from skyspan.testing.fake_clock import FakeClock
from skyspan.testing.memory_store import MemoryStore
from skyspan.testing.simulator.child import ending
from skyspan.testing.simulator.ground import ADDRESS, LEASE_S, RUN_ID
from skyspan.testing.simulator.result import Simulated
from skyspan.testing.simulator.scenario import End, Scenario
from skyspan.testing.simulator.world import needs

MakeDriver = Callable[[Store, Clock], Driver]


class FatedPerformer:
    """Performs each attempt as its fate says; implements `contracts.engine.Performer`."""

    def __init__(self, scenario: Scenario, clock: Clock) -> None:
        self._scenario, self._clock = scenario, clock
        self._needs = needs(scenario.started)
        self._failed: set[str] = set()

    async def perform(self, stage: str, attempt: int, journal: Journal) -> Outcome:
        """Look, intend, act, end."""
        fate = self._scenario.fate(stage, attempt)
        try:
            await self._clock.sleep(fate.looks_s)
            if fate.end.touches:
                await journal.record(EffectIntended(stage, attempt, "apply"))
                await self._clock.sleep(fate.acts_s)
        except asyncio.CancelledError:
            self._failed.add(stage)
            await self._clock.sleep(fate.stops_s)
            raise
        return outcome_of(stage, attempt, fate.end, self._needs[stage], self._failed)


def outcome_of(stage: str, attempt: int, end: End, needs: Sequence[str], failed: set[str]) -> Outcome:
    """The outcome of an attempt that ends so; `failed` are the stages whose latest attempt failed, kept up to date."""
    event = ending(stage, attempt, end, lambda _: next((need for need in needs if need in failed), ""))
    bad = isinstance(event, AttemptFailed) or event.status is StageStatus.FAILED
    (failed.add if bad else failed.discard)(stage)
    if isinstance(event, StageEnded) and event.outputs:
        outputs = {name: OutputValue(attempt) for name in event.outputs}
        return Outcome(event, StageRecord(ADDRESS.stage(stage), "simulated", {}, present=True, outputs=outputs))
    return Outcome(event)


def drive(scenario: Scenario, make_driver: MakeDriver) -> Simulated:
    """Carry out a calm scenario with a driver, on a store in memory."""
    return asyncio.run(_drive(scenario, make_driver))


async def _drive(scenario: Scenario, make_driver: MakeDriver) -> Simulated:
    store, clock = MemoryStore(), FakeClock()
    await store.save_deployment(DeploymentRecord(ADDRESS))
    lease = await store.acquire(Lease(ADDRESS, "engine-1", 0, clock.now() + LEASE_S, RUN_ID), clock.now())
    driver = make_driver(store, clock)
    cancels = [asyncio.create_task(_cancel(driver, clock, moment)) for moment in scenario.cancels_s]
    run = RunRecord(RUN_ID, ADDRESS, scenario.started.verb, epoch=lease.epoch)
    await driver.run(run, lease, scenario.started, FatedPerformer(scenario, clock))
    for cancel in cancels:
        cancel.cancel()
    recorded = list(await store.events(RUN_ID, limit=1_000_000))
    records = await store.stage_records(ADDRESS)
    return Simulated(
        scenario,
        recorded,
        [lease.epoch] * len(recorded),
        {record.address.name: tuple(record.outputs) for record in records},
    )


async def _cancel(driver: Driver, clock: Clock, moment: float) -> None:
    await clock.sleep(moment)
    driver.cancel("somebody")


@dataclass(frozen=True, slots=True)
class Trace:
    """One event by what every driver must agree on: when it came after the run's start, what it was, of which stage."""

    after_s: float
    kind: str
    stage: str
    attempt: int
    said: str


def traces(recorded: Sequence[RecordedEvent]) -> list[Trace]:
    """A run's events as traces."""
    start = recorded[0].at if recorded else 0.0
    return [_trace(item.at - start, item.event) for item in recorded]


def difference(one: Sequence[Trace], other: Sequence[Trace], *, tolerance_s: float = 1e-6) -> str:
    """The first place where two runs differ, in words; empty when they are equal. Clocks may differ by rounding."""
    for place, (left, right) in enumerate(zip(one, other, strict=False), 1):
        same = (left.kind, left.stage, left.attempt, left.said) == (right.kind, right.stage, right.attempt, right.said)
        if not same or abs(left.after_s - right.after_s) > tolerance_s:
            return f"event {place}: {left} and {right}"
    if len(one) != len(other):
        return f"{len(one)} events and {len(other)}"
    return ""


def _trace(after_s: float, event: Event) -> Trace:
    told: Any = event
    error = getattr(told, "error", None) or {}
    said = [getattr(told, name, "") for name in ("status", "cause", "effect", "delay_s", "outputs")]
    said += [error.get("kind", ""), error.get("retry", "")]
    return Trace(
        after_s,
        told.kind,
        getattr(told, "stage", ""),
        getattr(told, "attempt", 0),
        " ".join(str(part) for part in said),
    )
