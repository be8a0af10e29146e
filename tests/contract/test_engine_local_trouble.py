"""The local driver when its store, its lease, its listeners or its caller fail it."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

import pytest

from skyspan.contracts.engine import Journal, Outcome
from skyspan.contracts.store import Batch, Lease, RunRecord
from skyspan.drivers.local import Aim, LocalDriver, Pace
from skyspan.model.error import FencedError, SealError, StageError, StoreUnavailableError
from skyspan.model.event import (
    EffectIntended,
    RunEnded,
    RunStarted,
    StageEnded,
    StageOutline,
    StagePlanned,
    StageProgressed,
    StageStarted,
)
from skyspan.model.lifecycle import RunStatus, StageStatus, Verb
from skyspan.testing.conformance.engine import Bench, stage, until
from skyspan.testing.fake_clock import FakeClock
from skyspan.testing.memory_store import MemoryStore
from skyspan.testing.recorder import RecordingSink
from skyspan.testing.scripted_performer import Script, ScriptedPerformer


@dataclass
class Trouble:
    """A store that stops working: from the given number of appends on, for `times` writes."""

    error: Exception = field(default_factory=lambda: StoreUnavailableError("no space left", hint="make room"))
    from_append: int = 10**9
    times: int = 10**9
    calls: tuple[str, ...] = ("append",)
    seen: int = 0

    def __call__(self, call: str) -> None:
        if call not in self.calls:
            return
        self.seen += 1
        if self.seen >= self.from_append and self.times > 0:
            self.times -= 1
            raise self.error


@dataclass
class World:
    trouble: Trouble = field(default_factory=Trouble)
    clock: FakeClock = field(default_factory=FakeClock)

    def __post_init__(self) -> None:
        self.store = MemoryStore(self.trouble)
        self.bench = Bench(self.store, self.clock, lambda sinks: LocalDriver(self.store, self.clock, sinks))


async def test_a_full_disk_stops_the_run_in_order_and_says_what_to_do() -> None:
    world = World(Trouble(from_append=2))
    performer = world.bench.performer({"a": Script(takes_s=1.0), "b": Script(takes_s=600.0, stopping_s=5.0)})
    with pytest.raises(StoreUnavailableError) as caught:
        await world.bench.run([stage("a"), stage("b"), stage("c", "a")], performer)
    assert "no space left" in caught.value.summary
    assert "make room" in caught.value.hint
    assert ("stop", "b", 1) in performer.log
    assert not performer.running
    assert not any(what == "effect" and name == "c" for what, name, _ in performer.log)


async def test_no_effect_begins_when_its_intent_could_not_be_recorded() -> None:
    world = World(Trouble(from_append=1))
    performer = world.bench.performer()
    with pytest.raises(StoreUnavailableError):
        await world.bench.run([stage("a"), stage("b")], performer)
    assert [what for what, _, _ in performer.log if what == "effect"] == []


async def test_a_disk_that_has_room_again_gets_the_end_of_the_run() -> None:
    world = World(Trouble(from_append=2, times=1))
    performer = world.bench.performer({"a": Script(takes_s=5.0)})
    with pytest.raises(StoreUnavailableError, match="no space left"):
        await world.bench.run([stage("a"), stage("b", "a")], performer)
    run = await world.store.run("run-0001")
    assert run is not None
    assert run.status is RunStatus.CANCELLED
    assert "could not be written" in run.reason
    recorded = await world.store.events("run-0001")
    assert [item.seq for item in recorded] == list(range(1, len(recorded) + 1))


async def test_a_store_that_fails_at_the_very_start_raises_before_anything_begins() -> None:
    world = World(Trouble(from_append=1, calls=("begin_run",)))
    performer = world.bench.performer()
    with pytest.raises(StoreUnavailableError):
        await world.bench.run([stage("a")], performer)
    assert performer.log == []


async def test_a_run_whose_lease_was_taken_over_stops_everything_and_is_lost() -> None:
    world = World()
    performer = world.bench.performer({"a": Script(takes_s=600.0)})
    driver = world.bench.driver()
    lease = await world.bench.lease("run-0001", seconds=5.0)
    started = RunStarted(Verb.UP, (stage("a"), stage("b", "a")))
    running = asyncio.create_task(
        driver.run(RunRecord("run-0001", lease.deployment, Verb.UP), lease, started, performer)
    )
    await until(lambda: "a" in performer.running)
    thief = Lease(lease.deployment, "thief", 0, lease.expires_at + 900)
    await world.store.acquire(thief, lease.expires_at + 1)
    ended = await running
    assert ended.status is RunStatus.LOST
    assert "thief" in ended.reason
    assert ("stop", "a", 1) in performer.log
    kinds = [item.event.kind for item in await world.store.events("run-0001")]
    assert "stage_ended" not in kinds


async def test_the_lease_is_renewed_while_the_run_goes_on() -> None:
    world = World()
    performer = world.bench.performer({"a": Script(takes_s=100.0)})
    result = await world.bench.run([stage("a")], performer)
    assert result.ended.status is RunStatus.SUCCEEDED
    assert world.clock.monotonic() >= 100


async def test_a_store_that_cannot_renew_is_asked_again_until_the_lease_has_run_out() -> None:
    world = World(Trouble(from_append=1, times=5, calls=("renew",)))
    performer = world.bench.performer({"a": Script(takes_s=100.0)})
    assert (await world.bench.run([stage("a")], performer)).ended.status is RunStatus.SUCCEEDED
    world = World(Trouble(from_append=1, calls=("renew",)))
    performer = world.bench.performer({"a": Script(takes_s=100.0)})
    with pytest.raises(StoreUnavailableError):
        await world.bench.run([stage("a")], performer)
    assert 30 <= world.clock.monotonic() < 35


async def test_an_unexpected_failure_of_the_store_ends_the_run_and_is_raised() -> None:
    world = World(Trouble(RuntimeError("a bug in the store"), from_append=2))
    performer = world.bench.performer({"a": Script(takes_s=600.0)})
    with pytest.raises(RuntimeError, match="a bug in the store"):
        await world.bench.run([stage("a"), stage("b")], performer)
    assert not performer.running


async def test_a_cancelled_caller_stops_the_run_in_order_first() -> None:
    world = World()
    performer = world.bench.performer({"a": Script(takes_s=600.0, stopping_s=2.0)})
    running = asyncio.create_task(world.bench.run([stage("a"), stage("b", "a")], performer))
    await until(lambda: "a" in performer.running)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ("stop", "a", 1) in performer.log
    assert ("kill", "a", 1) not in performer.log
    run = await world.store.run("run-0001")
    assert run is not None
    assert run.status is RunStatus.CANCELLED


class Performing:
    """A performer made of one function."""

    def __init__(self, act: object) -> None:
        self._act = act

    async def perform(self, stage: str, attempt: int, journal: Journal) -> Outcome:
        outcome: Outcome = await self._act(stage, attempt, journal)  # type: ignore[operator]
        return outcome


async def run_one(world: World, act: object, **policies: object) -> tuple[RunEnded, dict[str, str]]:
    lease = await world.bench.lease("run-0001")
    started = RunStarted(Verb.UP, (StageOutline("a", "scripted", **policies),))  # type: ignore[arg-type]
    driver = world.bench.driver()
    ended = await driver.run(RunRecord("run-0001", lease.deployment, Verb.UP), lease, started, Performing(act))
    row = (await world.store.stage_runs("run-0001"))[0]
    return ended, {"status": row.status.value, "kind": (row.error or {}).get("kind", ""), "reason": row.reason}


async def test_an_attempt_that_reports_for_another_stage_is_a_bug_and_does_not_hang() -> None:
    async def wrong(stage: str, attempt: int, journal: Journal) -> Outcome:
        return Outcome(StageEnded("b", 7, StageStatus.SUCCEEDED))

    assert (await run_one(World(), wrong))[1]["kind"] == "InternalError"


async def test_an_attempt_that_ends_as_running_is_a_bug_and_does_not_hang() -> None:
    async def wrong(stage: str, attempt: int, journal: Journal) -> Outcome:
        return Outcome(StageEnded(stage, attempt, StageStatus.RUNNING))

    assert (await run_one(World(), wrong))[1]["kind"] == "InternalError"


async def test_an_attempt_that_cancels_itself_is_a_bug_and_does_not_hang() -> None:
    async def wrong(stage: str, attempt: int, journal: Journal) -> Outcome:
        raise asyncio.CancelledError

    assert (await run_one(World(), wrong))[1]["kind"] == "InternalError"


async def test_errors_that_escape_an_attempt_are_failures_of_its_stage() -> None:
    async def stage_error(stage: str, attempt: int, journal: Journal) -> Outcome:
        raise StageError("it broke")

    async def seal_error(stage: str, attempt: int, journal: Journal) -> Outcome:
        raise SealError("the state cannot be opened", hint="wrong key")

    assert (await run_one(World(), stage_error))[1]["reason"] == "it broke"
    assert (await run_one(World(), seal_error))[1]["reason"] == "the state cannot be opened"


async def test_a_failure_caused_by_the_timeouts_stop_is_told_as_the_timeout() -> None:
    async def act(stage: str, attempt: int, journal: Journal) -> Outcome:
        try:
            await world.clock.sleep(100)
        except asyncio.CancelledError:
            raise StageError("interrupted") from None
        raise AssertionError

    world = World()
    told = (await run_one(world, act, timeout_s=3.0))[1]
    assert told["kind"] == "StageTimeoutError"
    assert "3 s" in told["reason"]


async def test_what_ended_well_while_it_was_being_stopped_has_ended_well() -> None:
    async def act(stage: str, attempt: int, journal: Journal) -> Outcome:
        with contextlib.suppress(asyncio.CancelledError):
            await world.clock.sleep(100)
        return Outcome(StageEnded(stage, attempt, StageStatus.SUCCEEDED))

    world = World()
    assert (await run_one(world, act, timeout_s=3.0))[1]["status"] == "succeeded"


async def test_a_cancelled_attempt_says_whether_it_had_begun_to_act() -> None:
    for effect, said in (("", "before it changed anything"), ("apply", "during apply")):
        world = World()
        performer = world.bench.performer({"a": Script(takes_s=600.0, effect=effect)})
        driver = world.bench.driver()
        running = asyncio.create_task(world.bench.run([stage("a")], performer, driver=driver))
        begun = ("effect" if effect else "begin", "a", 1)
        await until(lambda: begun in performer.log)  # noqa: B023
        driver.cancel("somebody")
        assert said in (await running).stages["a"].reason


async def test_secrets_are_taken_out_of_every_event() -> None:
    async def act(stage: str, attempt: int, journal: Journal) -> Outcome:
        journal.note(StagePlanned(stage, attempt, {"change": "create", "resources": [{"address": "x.hunter2"}]}))
        journal.note(StageProgressed(stage, attempt, "x.hunter2", "create", "done", "token hunter2"))
        await journal.record(EffectIntended(stage, attempt, "apply"))
        raise StageError("refused hunter2", detail="said: hunter2", hint="hunter2")

    world, sink = World(), RecordingSink()
    driver = LocalDriver(world.store, world.clock, [sink], redact=lambda text: text.replace("hunter2", "***"))
    lease = await world.bench.lease("run-0001")
    run = RunRecord("run-0001", lease.deployment, Verb.UP)
    await driver.run(run, lease, RunStarted(Verb.UP, (stage("a"),)), Performing(act))
    for told in (str(await world.store.events("run-0001")), str(sink.recorded), str(world.store.appended)):
        assert "hunter2" not in told
        assert "x.***" in told


async def test_the_end_of_a_stage_and_the_intent_of_the_next_share_one_transaction() -> None:
    world = World()
    names = [f"s{number}" for number in range(50)]
    stages = [stage(name, *names[max(place - 1, 0) : place]) for place, name in enumerate(names)]
    await world.bench.run(stages, world.bench.performer())
    assert len(world.store.appended) <= len(names) + 2


async def test_notes_alone_are_written_soon() -> None:
    async def act(stage: str, attempt: int, journal: Journal) -> Outcome:
        journal.note(StageProgressed(stage, attempt, "x", "create", "started"))
        await world.clock.sleep(1.0)
        seen.extend(item.event.kind for item in await world.store.events("run-0001"))
        return Outcome(StageEnded(stage, attempt, StageStatus.SUCCEEDED))

    world = World()
    seen: list[str] = []
    await run_one(world, act)
    assert "stage_progressed" in seen


async def test_a_late_record_is_refused_so_that_no_effect_follows() -> None:
    late: list[Exception] = []

    async def act(stage: str, attempt: int, journal: Journal) -> Outcome:
        try:
            await journal.record(EffectIntended(stage, attempt + 1, "apply"))
        except RuntimeError as error:
            late.append(error)
        return Outcome(StageEnded(stage, attempt, StageStatus.SUCCEEDED))

    await run_one(World(), act)
    assert "after its attempt was over" in str(late[0])


async def test_a_driver_performs_one_run_at_a_time() -> None:
    world = World()
    performer = world.bench.performer({"a": Script(takes_s=10.0)})
    driver = world.bench.driver()
    running = asyncio.create_task(world.bench.run([stage("a")], performer, driver=driver))
    await until(lambda: "a" in performer.running)
    lease = Lease(world.bench.address, "tester", 1, 0.0)
    with pytest.raises(RuntimeError, match="one per run"):
        await driver.run(RunRecord("run-0002", lease.deployment, Verb.UP), lease, RunStarted(Verb.UP, ()), performer)
    await running


async def test_a_fenced_write_of_an_attempt_loses_the_run() -> None:
    async def act(stage: str, attempt: int, journal: Journal) -> Outcome:
        raise FencedError("epoch 1 is over")

    ended, _ = await run_one(World(), act)
    assert ended.status is RunStatus.LOST


async def test_a_full_disk_met_by_an_attempt_itself_stops_the_run_and_says_so() -> None:
    async def act(stage: str, attempt: int, journal: Journal) -> Outcome:
        raise StoreUnavailableError("no space left", hint="make room")

    with pytest.raises(StoreUnavailableError, match="was stopped, because the store cannot be written: no space left"):
        await run_one(World(), act)


async def test_another_process_is_heard_within_the_pace() -> None:
    store, clock = MemoryStore(), FakeClock()
    bench = Bench(store, clock, lambda sinks: LocalDriver(store, clock, sinks, pace=Pace(poll_s=2.0)))
    performer = ScriptedPerformer(clock, {"a": Script(takes_s=600.0)})
    running = asyncio.create_task(bench.run([stage("a")], performer))
    await until(lambda: "a" in performer.running)
    await store.request_cancel("run-0001", "elsewhere")
    assert (await running).ended.status is RunStatus.CANCELLED
    assert clock.monotonic() <= 2.0


class SlowStore(MemoryStore):
    """A store whose next write takes until `answer` is set, once `hold` is."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble)
        self.hold, self.waits, self.answer = False, False, asyncio.Event()

    async def append(self, run_id: str, lease: Lease, batch: Batch) -> None:
        if self.hold:
            self.waits = True
            await self.answer.wait()
        await super().append(run_id, lease, batch)


@dataclass
class Cancelled:
    """A run with one long stage, asked to cancel while its store does not answer."""

    world: World = field(default_factory=World)

    async def begin(self, stopping_s: float) -> None:
        self.store = SlowStore(self.world.trouble)
        self.bench = Bench(self.store, self.world.clock, lambda sinks: LocalDriver(self.store, self.world.clock, sinks))
        self.performer = self.bench.performer({"a": Script(takes_s=600.0, stopping_s=stopping_s)})
        self.driver = self.bench.driver()
        self.running = asyncio.create_task(self.bench.run([stage("a")], self.performer, driver=self.driver))
        await until(lambda: ("effect", "a", 1) in self.performer.log)
        self.store.hold = True

    async def ask(self) -> None:
        self.driver.cancel("somebody")
        await until(lambda: self.store.waits)
        for _ in range(20):
            await asyncio.sleep(0)
        assert ("stop", "a", 1) not in self.performer.log

    def answer(self) -> None:
        self.store.hold = False
        self.store.answer.set()


async def test_nothing_is_stopped_while_the_store_has_not_taken_the_request_to_cancel() -> None:
    run = Cancelled()
    await run.begin(stopping_s=0.0)
    await run.ask()
    run.answer()
    assert (await run.running).ended.status is RunStatus.CANCELLED
    assert ("stop", "a", 1) in run.performer.log


async def test_asking_twice_before_the_store_answers_stops_at_once() -> None:
    run = Cancelled()
    await run.begin(stopping_s=600.0)
    await run.ask()
    run.driver.cancel("somebody")
    run.answer()
    assert (await run.running).ended.status is RunStatus.CANCELLED
    assert ("kill", "a", 1) in run.performer.log
    assert run.world.clock.monotonic() < 600


async def test_what_runs_is_stopped_in_order_when_the_request_to_cancel_cannot_be_written() -> None:
    run = Cancelled()
    await run.begin(stopping_s=1.0)
    await run.ask()
    run.world.trouble.from_append = 0
    run.answer()
    with pytest.raises(StoreUnavailableError):
        await run.running
    assert ("stop", "a", 1) in run.performer.log
    assert ("kill", "a", 1) not in run.performer.log


async def test_what_a_dead_engine_left_is_stopped_under_a_lease_once_the_request_to_cancel_is_durable() -> None:
    world = World()
    seen: list[str] = []
    lease = await world.bench.lease("run-0001", seconds=30.0)
    run = RunRecord("run-0001", lease.deployment, Verb.UP)
    await world.store.begin_run(run, lease)
    begun = (RunStarted(Verb.UP, (stage("a"),)), StageStarted("a", 1), EffectIntended("a", 1, "apply"))
    await world.store.append(run.id, lease, Batch(tuple((world.clock.now(), event) for event in begun)))

    async def stop_left() -> None:
        seen.extend(item.event.kind for item in await world.store.events(run.id))
        await world.clock.sleep(100.0)

    driver = LocalDriver(world.store, world.clock)
    recorded = await world.store.events(run.id)
    performer = world.bench.performer()
    ended = await driver.resume(run, lease, recorded, performer, Aim.cancel("somebody"), stop_left)
    assert ended.status is RunStatus.CANCELLED
    assert seen[-1] == "cancel_requested"
    assert performer.log == []
    assert world.clock.monotonic() >= 100


async def test_nothing_is_stopped_when_the_request_to_cancel_an_interrupted_run_cannot_be_written() -> None:
    world = World()
    lease = await world.bench.lease("run-0001")
    run = RunRecord("run-0001", lease.deployment, Verb.UP)
    await world.store.begin_run(run, lease)
    begun = (RunStarted(Verb.UP, (stage("a"),)), StageStarted("a", 1), EffectIntended("a", 1, "apply"))
    await world.store.append(run.id, lease, Batch(tuple((world.clock.now(), event) for event in begun)))
    world.trouble.from_append = 0

    async def stop_left() -> None:
        raise AssertionError

    driver = LocalDriver(world.store, world.clock)
    recorded = await world.store.events(run.id)
    with pytest.raises(StoreUnavailableError):
        await driver.resume(run, lease, recorded, world.bench.performer(), Aim.cancel("somebody"), stop_left)


async def test_asking_once_more_ends_at_once_what_a_dead_engine_left() -> None:
    world = World()
    lease = await world.bench.lease("run-0001")
    run = RunRecord("run-0001", lease.deployment, Verb.UP)
    await world.store.begin_run(run, lease)
    begun = (RunStarted(Verb.UP, (stage("a"),)), StageStarted("a", 1), EffectIntended("a", 1, "apply"))
    await world.store.append(run.id, lease, Batch(tuple((world.clock.now(), event) for event in begun)))
    stopping, killed = asyncio.Event(), []

    async def stop_left() -> None:
        stopping.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            killed.append("a")
            raise

    driver = LocalDriver(world.store, world.clock)
    recorded = await world.store.events(run.id)
    aim = Aim.cancel("somebody")
    running = asyncio.create_task(driver.resume(run, lease, recorded, world.bench.performer(), aim, stop_left))
    await stopping.wait()
    driver.cancel("somebody")
    assert (await running).status is RunStatus.CANCELLED
    assert killed == ["a"]
