"""The rules of `contracts.engine.Driver`, as tests that every driver inherits."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from skyspan.contracts.context import Clock
from skyspan.contracts.engine import Driver, EventSink
from skyspan.contracts.store import DeploymentRecord, Lease, RunRecord, StageRunRecord, Store
from skyspan.model.address import DeploymentAddress
from skyspan.model.error import Retry, StageError, ToolFailedError, UnreachableError
from skyspan.model.event import CancelRequested, Event, RecordedEvent, RunEnded, RunStarted, StageOutline
from skyspan.model.lifecycle import RunStatus, StageStatus, Verb
from skyspan.testing.recorder import RecordingSink
from skyspan.testing.scripted_performer import Script, ScriptedPerformer

FAILED = ToolFailedError("the tool said no", detail="its last words")


def stage(name: str, *needs: str, **policies: Any) -> StageOutline:
    """An outline of a stage."""
    return StageOutline(name, "scripted", needs, **policies)


@dataclass
class Bench:
    """What a test of a driver needs. A fixture named `bench` supplies one with a fresh, empty store.

    `make_driver` is given the sinks.
    """

    store: Store
    clock: Clock
    make_driver: Any
    address: DeploymentAddress = field(default=DeploymentAddress("default", "site"))
    count: int = 0

    def performer(self, scripts: Mapping[str, Script] | None = None) -> ScriptedPerformer:
        """A performer on this bench's clock."""
        return ScriptedPerformer(self.clock, scripts or {})

    def driver(self, *sinks: EventSink) -> Driver:
        """A driver of the kind under test."""
        made: Driver = self.make_driver(sinks)
        return made

    async def lease(self, run_id: str, *, seconds: float = 30.0) -> Lease:
        """Take the deployment's lease for a run."""
        if await self.store.deployment(self.address) is None:
            await self.store.save_deployment(DeploymentRecord(self.address))
        now = self.clock.now()
        return await self.store.acquire(Lease(self.address, "tester", 0, now + seconds, run_id, Verb.UP), now)

    async def run(
        self,
        stages: Sequence[StageOutline],
        performer: ScriptedPerformer,
        *sinks: EventSink,
        driver: Driver | None = None,
        **policies: Any,
    ) -> Result:
        """A whole run, and what is remembered of it."""
        self.count += 1
        run_id = f"run-{self.count:04}"
        started = RunStarted(policies.pop("verb", Verb.UP), tuple(stages), **policies)
        lease = await self.lease(run_id)
        record = RunRecord(run_id, self.address, started.verb, epoch=lease.epoch)
        try:
            ended = await (driver or self.driver(*sinks)).run(record, lease, started, performer)
        finally:
            await self.store.release(lease)
        return await self.result(run_id, ended)

    async def result(self, run_id: str, ended: RunEnded) -> Result:
        """What the store remembers of a run."""
        recorded: list[RecordedEvent] = []
        while page := await self.store.events(run_id, after=len(recorded)):
            recorded += page
        run = await self.store.run(run_id)
        assert run is not None
        stages = {row.name: row for row in await self.store.stage_runs(run_id)}
        return Result(ended, run, stages, recorded)


@dataclass(frozen=True)
class Result:
    """How a run ended, by the driver's word and by the store's."""

    ended: RunEnded
    run: RunRecord
    stages: Mapping[str, StageRunRecord]
    recorded: Sequence[RecordedEvent]

    @property
    def events(self) -> list[Event]:
        """The run's events in order."""
        return [item.event for item in self.recorded]

    def statuses(self) -> dict[str, str]:
        """Each stage's status."""
        return {name: row.status.value for name, row in self.stages.items()}


class EngineDriverConformance:
    """Inherit and supply the fixture `bench`."""

    async def test_stages_run_after_what_they_need(self, bench: Bench) -> None:
        performer = bench.performer()
        result = await bench.run([stage("c", "b"), stage("b", "a"), stage("a")], performer)
        assert performer.begun() == ["a", "b", "c"]
        assert result.ended.status is RunStatus.SUCCEEDED
        assert set(result.statuses().values()) == {"succeeded"}

    async def test_independent_stages_run_at_the_same_time(self, bench: Bench) -> None:
        scripts = {name: Script(takes_s=0.1) for name in "abcdefgh"}
        performer = bench.performer(scripts)
        await bench.run([stage(name) for name in scripts], performer)
        assert performer.most_at_once == 8

    async def test_no_more_stages_run_at_once_than_allowed(self, bench: Bench) -> None:
        scripts = {f"s{number}": Script(takes_s=0.01) for number in range(12)}
        performer = bench.performer(scripts)
        result = await bench.run([stage(name) for name in scripts], performer, concurrency=3)
        assert performer.most_at_once == 3
        assert len(performer.begun()) == 12
        assert result.ended.status is RunStatus.SUCCEEDED

    async def test_a_run_of_nothing_succeeds(self, bench: Bench) -> None:
        result = await bench.run([], bench.performer())
        assert result.ended.status is RunStatus.SUCCEEDED
        assert [event.kind for event in result.events] == ["run_started", "run_ended"]

    async def test_dependents_of_a_failure_are_skipped_and_name_its_root(self, bench: Bench) -> None:
        performer = bench.performer({"cloud": Script(ends=(FAILED,))})
        stages = [stage("cloud"), stage("link", "cloud"), stage("check", "link"), stage("lab")]
        result = await bench.run(stages, performer)
        assert result.statuses() == {"cloud": "failed", "link": "skipped", "check": "skipped", "lab": "succeeded"}
        assert result.stages["check"].reason == "cloud failed"
        assert result.ended.status is result.run.status is RunStatus.FAILED
        assert "cloud" in result.run.reason
        error = result.stages["cloud"].error
        assert error is not None
        assert error["detail"] == "its last words"

    async def test_a_best_effort_failure_degrades_and_lets_dependents_go_on(self, bench: Bench) -> None:
        performer = bench.performer({"register": Script(ends=(FAILED,))})
        result = await bench.run([stage("register", best_effort=True), stage("after", "register")], performer)
        assert result.statuses() == {"register": "failed", "after": "succeeded"}
        assert result.ended.status is RunStatus.DEGRADED

    async def test_a_stage_left_out_by_its_condition_lets_dependents_go_on(self, bench: Bench) -> None:
        performer = bench.performer({"extra": Script(ends=(StageStatus.SKIPPED,), effect="")})
        result = await bench.run([stage("extra"), stage("after", "extra")], performer)
        assert result.statuses() == {"extra": "skipped", "after": "succeeded"}
        assert result.ended.status is RunStatus.SUCCEEDED

    async def test_failures_that_may_pass_are_retried_with_growing_pauses(self, bench: Bench) -> None:
        down = UnreachableError("no answer")
        performer = bench.performer({"a": Script(ends=(down, down, StageStatus.SUCCEEDED))})
        before = bench.clock.monotonic()
        result = await bench.run([stage("a", attempts=3, backoff_s=0.05)], performer)
        assert result.ended.status is RunStatus.SUCCEEDED
        assert result.stages["a"].attempt == 3
        assert bench.clock.monotonic() - before >= 0.15 - 1e-6

    async def test_failures_that_cannot_pass_are_not_retried(self, bench: Bench) -> None:
        performer = bench.performer({"a": Script(ends=(FAILED,)), "b": Script(ends=(UnreachableError("down"),))})
        result = await bench.run([stage("a", attempts=3), stage("b", attempts=2, backoff_s=0.001)], performer)
        assert result.stages["a"].attempt == 1
        assert result.stages["b"].attempt == 2
        assert result.ended.status is RunStatus.FAILED

    async def test_a_retry_may_be_immediate_and_every_failure_may_be_retried(self, bench: Bench) -> None:
        at_once = StageError("again", retry=Retry.NOW)
        performer = bench.performer({"a": Script(ends=(at_once, FAILED, StageStatus.SUCCEEDED))})
        result = await bench.run([stage("a", attempts=3, retry_any=True, backoff_s=0.001)], performer)
        assert result.ended.status is RunStatus.SUCCEEDED

    async def test_an_attempt_over_its_timeout_is_stopped_and_fails(self, bench: Bench) -> None:
        performer = bench.performer({"slow": Script(takes_s=600.0)})
        result = await bench.run([stage("slow", timeout_s=0.05), stage("after", "slow")], performer)
        error = result.stages["slow"].error
        assert error is not None
        assert error["kind"] == "StageTimeoutError"
        assert ("stop", "slow", 1) in performer.log
        assert result.statuses() == {"slow": "failed", "after": "skipped"}

    async def test_fail_fast_starts_nothing_after_the_first_failure(self, bench: Bench) -> None:
        scripts = {"bad": Script(ends=(FAILED,)), "long": Script(takes_s=0.05)}
        performer = bench.performer(scripts)
        stages = [stage("bad"), stage("long"), stage("later", "long"), stage("other")]
        result = await bench.run(stages, performer, fail_fast=True, concurrency=2)
        assert result.statuses() == {"bad": "failed", "long": "succeeded", "later": "skipped", "other": "skipped"}
        assert "bad" in result.stages["other"].reason

    async def test_cancelling_stops_what_runs_and_starts_nothing_more(self, bench: Bench) -> None:
        performer = bench.performer({"a": Script(takes_s=600.0, stopping_s=0.01)})
        driver = bench.driver()
        waiting = asyncio.create_task(bench.run([stage("a"), stage("b", "a")], performer, driver=driver))
        await until(lambda: "a" in performer.running)
        driver.cancel("somebody")
        result = await waiting
        assert performer.begun() == ["a"]
        assert result.statuses() == {"a": "cancelled", "b": "cancelled"}
        assert result.ended.status is result.run.status is RunStatus.CANCELLED
        assert "somebody" in result.run.reason

    async def test_cancelling_twice_stops_at_once(self, bench: Bench) -> None:
        performer = bench.performer({"a": Script(takes_s=600.0, stopping_s=600.0)})
        driver = bench.driver()
        before = bench.clock.monotonic()
        waiting = asyncio.create_task(bench.run([stage("a")], performer, driver=driver))
        await until(lambda: "a" in performer.running)
        driver.cancel("somebody")
        await until(lambda: ("stop", "a", 1) in performer.log)
        driver.cancel("somebody")
        result = await waiting
        assert ("kill", "a", 1) in performer.log
        assert result.ended.status is RunStatus.CANCELLED
        assert bench.clock.monotonic() - before < 600

    async def test_a_request_to_cancel_is_durable_before_anything_is_stopped(self, bench: Bench) -> None:
        on_record: list[bool] = []

        class Watching(ScriptedPerformer):
            async def _stop(self, script: Script, stage: str, attempt: int) -> None:
                events = await bench.store.events(f"run-{bench.count:04}")
                on_record.append(any(isinstance(item.event, CancelRequested) for item in events))
                await super()._stop(script, stage, attempt)

        performer = Watching(bench.clock, {"a": Script(takes_s=600.0), "b": Script(takes_s=600.0)})
        driver = bench.driver()
        waiting = asyncio.create_task(bench.run([stage("a"), stage("b")], performer, driver=driver))
        await until(lambda: performer.running == {"a", "b"})
        driver.cancel("somebody")
        assert (await waiting).ended.status is RunStatus.CANCELLED
        assert on_record == [True, True]

    async def test_another_process_may_ask_to_cancel(self, bench: Bench) -> None:
        performer = bench.performer({"a": Script(takes_s=600.0)})
        waiting = asyncio.create_task(bench.run([stage("a")], performer))
        await until(lambda: "a" in performer.running)
        await bench.store.request_cancel(f"run-{bench.count:04}", "root@elsewhere")
        result = await waiting
        assert result.ended.status is RunStatus.CANCELLED
        assert "root@elsewhere" in result.run.reason

    async def test_cancelling_before_the_start_starts_nothing(self, bench: Bench) -> None:
        performer = bench.performer()
        driver = bench.driver()
        driver.cancel("somebody")
        result = await bench.run([stage("a"), stage("b", "a")], performer, driver=driver)
        assert not any(what == "effect" for what, _, _ in performer.log)
        assert result.ended.status is RunStatus.CANCELLED

    async def test_a_broken_provider_is_reported_as_a_bug_and_stops_nothing_else(self, bench: Bench) -> None:
        performer = bench.performer({"broken": Script(ends=(ZeroDivisionError("division by zero"),))})
        stages = [stage("broken", attempts=3, retry_any=True), stage("after", "broken"), stage("other")]
        result = await bench.run(stages, performer)
        assert result.statuses() == {"broken": "failed", "after": "skipped", "other": "succeeded"}
        error = result.stages["broken"].error
        assert error is not None
        assert error["kind"] == "InternalError"
        assert "ZeroDivisionError: division by zero" in error["detail"]

    async def test_an_intent_is_durable_before_its_effect(self, bench: Bench) -> None:
        seen: list[bool] = []
        store, clock = bench.store, bench.clock

        class Watching(ScriptedPerformer):
            async def _follow(self, script: Script, stage: str, attempt: int, journal: Any) -> Any:
                outcome = await super()._follow(script, stage, attempt, journal)
                events = await store.events("run-0001", limit=1000)
                intents = [item.event for item in events if item.event.kind == "effect_intended"]
                seen.append(any(intent.stage == stage for intent in intents))  # type: ignore[union-attr]
                return outcome

        await bench.run([stage("a"), stage("b", "a")], Watching(clock))
        assert seen == [True, True]

    async def test_events_are_numbered_without_gap_and_told_to_every_listener(self, bench: Bench) -> None:
        sink = RecordingSink()
        performer = bench.performer({"b": Script(ends=(FAILED,))})
        result = await bench.run([stage("a"), stage("b", "a"), stage("c", "b")], performer, sink)
        assert [item.seq for item in result.recorded] == list(range(1, len(result.recorded) + 1))
        assert [replace(item, at=0.0) for item in sink.recorded] == [replace(item, at=0.0) for item in result.recorded]
        assert result.events[0].kind == "run_started"
        assert result.events[-1].kind == "run_ended"

    async def test_a_failing_listener_does_not_break_the_run(self, bench: Bench) -> None:
        sink = RecordingSink()

        def broken(event: RecordedEvent) -> None:
            msg = "the terminal went away"
            raise OSError(msg)

        result = await bench.run([stage("a"), stage("b", "a")], bench.performer(), broken, sink)
        assert result.ended.status is RunStatus.SUCCEEDED
        assert len(sink.recorded) == len(result.recorded)

    async def test_a_chain_of_500_stages_completes(self, bench: Bench) -> None:
        names = [f"s{number:03}" for number in range(500)]
        stages = [stage(name, *names[max(place - 1, 0) : place]) for place, name in enumerate(names)]
        performer = bench.performer()
        result = await bench.run(stages, performer)
        assert performer.begun() == names
        assert result.ended.status is RunStatus.SUCCEEDED

    async def test_a_fan_of_500_stages_completes(self, bench: Bench) -> None:
        names = [f"s{number:03}" for number in range(500)]
        stages = [stage("root"), *(stage(name, "root") for name in names), stage("end", *names)]
        performer = bench.performer()
        result = await bench.run(stages, performer)
        assert performer.begun()[0] == "root"
        assert performer.begun()[-1] == "end"
        assert set(result.statuses().values()) == {"succeeded"}
        assert result.ended.status is RunStatus.SUCCEEDED


async def until(condition: Any) -> None:
    """Let everything else go on until `condition()` holds; fails when it never does."""
    for _ in range(1_000_000):
        if condition():
            return
        await asyncio.sleep(0)
    msg = "what the test waits for did not happen"
    raise AssertionError(msg)
