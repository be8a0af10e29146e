"""Random graphs with random outcomes: what must hold of every run, judged from the recorded events alone."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest

from skyspan.engine import NEW, BeginAttempt, Finish, StopAttempt, Wake, decide, restore
from skyspan.model.error import Retry, StageError, ToolFailedError, UnreachableError
from skyspan.model.event import (
    AttemptFailed,
    CancelRequested,
    Event,
    RetryDue,
    RetryScheduled,
    RunEnded,
    RunStarted,
    StageEnded,
    StageOutline,
    StageStarted,
)
from skyspan.model.lifecycle import RunStatus, StageStatus, Verb

SEEDS = range(400)
ERRORS = (ToolFailedError("no"), UnreachableError("down"), StageError("again", retry=Retry.NOW))
GOOD = (StageStatus.SUCCEEDED, StageStatus.UNCHANGED)


def random_start(chance: random.Random) -> RunStarted:
    count = chance.randint(0, 14)
    density = chance.random() * 0.6
    outlines = [
        StageOutline(
            f"s{place}",
            "scripted",
            tuple(f"s{earlier}" for earlier in range(place) if chance.random() < density),
            best_effort=chance.random() < 0.25,
            attempts=chance.randint(1, 4),
            retry_any=chance.random() < 0.2,
        )
        for place in range(count)
    ]
    chance.shuffle(outlines)
    verb = chance.choice((Verb.UP, Verb.UP, Verb.PLAN, Verb.DESTROY, Verb.STOP, Verb.CHECK))
    return RunStarted(verb, tuple(outlines), concurrency=chance.randint(1, 5), fail_fast=chance.random() < 0.3)


def random_run(seed: int) -> tuple[RunStarted, list[Event]]:
    """A run driven to its end, effects performed in random order."""
    chance = random.Random(seed)
    started = random_start(chance)
    trouble = chance.choice((0.0, 0.15, 0.5))
    cancels = chance.choice((0, 0, 0, 1, 2))
    state, recorded, open_effects = NEW, [], []  # type: ignore[var-annotated]
    event: Event = started
    for _ in range(10_000):
        step = decide(state, event)
        state = step.state
        recorded += step.events
        open_effects += [effect for effect in step.effects if not isinstance(effect, StopAttempt | Finish)]
        if any(isinstance(effect, Finish) for effect in step.effects):
            assert state == restore(recorded)
            return started, recorded
        if cancels and chance.random() < 0.1:
            cancels -= 1
            event = CancelRequested("chance")
            continue
        effect = open_effects.pop(chance.randrange(len(open_effects)))
        event = random_end(chance, effect, trouble, cancelled=state.cancelled_by is not None)
    raise AssertionError("the run did not end")


def random_end(chance: random.Random, effect: BeginAttempt | Wake, trouble: float, *, cancelled: bool) -> Event:
    if isinstance(effect, Wake):
        return RetryDue(effect.stage, effect.attempt)
    if cancelled and chance.random() < 0.7:
        return StageEnded(effect.stage, effect.attempt, StageStatus.CANCELLED)
    if chance.random() < trouble:
        if chance.random() < 0.2:
            return StageEnded(effect.stage, effect.attempt, StageStatus.FAILED, error=ERRORS[0].record())
        return AttemptFailed(effect.stage, effect.attempt, chance.choice(ERRORS).record())
    if chance.random() < 0.1:
        return StageEnded(effect.stage, effect.attempt, StageStatus.SKIPPED, reason="if is false")
    return StageEnded(effect.stage, effect.attempt, chance.choice(GOOD))


def audit(started: RunStarted, recorded: list[Event]) -> None:
    """The rules of a run, from its events alone."""
    outlines = {outline.name: outline for outline in started.stages}
    running: set[str] = set()
    ended: dict[str, StageEnded] = {}
    attempts: Counter[str] = Counter()
    cancelled = closed = False
    assert recorded[0] == started
    for event in recorded[1:]:
        match event:
            case StageStarted(stage=name):
                outline = outlines[name]
                assert name not in running, "one attempt at a time"
                assert name not in ended, "nothing starts after its end"
                assert not cancelled, "nothing starts once cancelled"
                assert not closed, "nothing starts after a failure when failing fast"
                attempts[name] += 1
                assert event.attempt == attempts[name] <= outline.attempts
                running.add(name)
                assert len(running) <= started.concurrency
                if started.verb is not Verb.CHECK:
                    for need in outline.needs:
                        assert need in ended, "needs come first"
                        assert lets_go(outlines[need], ended[need]), "nothing starts after a failed need"
            case RetryScheduled(stage=name):
                running.discard(name)
            case StageEnded(stage=name):
                assert name not in ended, "one end each"
                running.discard(name)
                ended[name] = event
                if event.status is StageStatus.SKIPPED and event.cause:
                    assert ended[event.cause].status is not StageStatus.SUCCEEDED, (
                        "the cause is a stage that went wrong"
                    )
                failed = event.status is StageStatus.FAILED and not outlines[name].best_effort
                closed = closed or (started.fail_fast and failed)
            case CancelRequested():
                cancelled = True
            case _:
                pass
    assert set(ended) == set(outlines), "every stage ends"
    assert not running
    assert isinstance(recorded[-1], RunEnded)
    assert sum(isinstance(event, RunEnded) for event in recorded) == 1
    assert recorded[-1].status is expected(outlines, ended)


def lets_go(outline: StageOutline, end: StageEnded) -> bool:
    if end.status in (StageStatus.FAILED, StageStatus.SKIPPED):
        return outline.best_effort or (end.status is StageStatus.SKIPPED and not end.cause)
    return end.status is not StageStatus.CANCELLED


def expected(outlines: dict[str, StageOutline], ended: dict[str, StageEnded]) -> RunStatus:
    statuses = {(end.status, outlines[name].best_effort) for name, end in ended.items()}
    if StageStatus.CANCELLED in {status for status, _ in statuses}:
        return RunStatus.CANCELLED
    if (StageStatus.FAILED, False) in statuses:
        return RunStatus.FAILED
    return RunStatus.DEGRADED if (StageStatus.FAILED, True) in statuses else RunStatus.SUCCEEDED


def test_every_random_run_keeps_the_rules() -> None:
    for seed in SEEDS:
        started, recorded = random_run(seed)
        try:
            audit(started, recorded)
        except AssertionError as broken:
            pytest.fail(f"seed {seed}: {broken}")


def test_random_runs_reach_every_kind_of_end() -> None:
    reached = {recorded[-1].status for _, recorded in map(random_run, SEEDS)}  # type: ignore[union-attr]
    assert reached == {RunStatus.SUCCEEDED, RunStatus.DEGRADED, RunStatus.FAILED, RunStatus.CANCELLED}


def test_the_same_seed_gives_the_same_run() -> None:
    for one, other in pairwise(random_run(7) for _ in range(3)):
        assert one == other


def chain(count: int) -> RunStarted:
    return RunStarted(Verb.UP, tuple(StageOutline(f"s{i}", "t", (f"s{i - 1}",) if i else ()) for i in range(count)))


def fan(count: int) -> RunStarted:
    names = tuple(f"s{i}" for i in range(count))
    return RunStarted(
        Verb.UP,
        (
            StageOutline("root", "t"),
            *(StageOutline(name, "t", ("root",)) for name in names),
            StageOutline("end", "t", names),
        ),
    )


def copies(started: RunStarted) -> int:
    """How many stage states are rebuilt while everything succeeds: the engine's work, without a stopwatch."""
    state, rebuilt = NEW, 0
    queue: list[Event] = [started]
    while queue:
        step = decide(state, queue.pop())
        if state.begun:
            rebuilt += sum(
                1
                for before, now in zip(state.board.leaves, step.state.board.leaves, strict=True)
                if before is not now
                for old, new in zip(before, now, strict=True)
                if old is not new
            )
        state = step.state
        begun = (effect for effect in step.effects if isinstance(effect, BeginAttempt))
        queue += [StageEnded(effect.stage, effect.attempt, StageStatus.SUCCEEDED) for effect in begun]
    assert state.ended is not None
    return rebuilt


@pytest.mark.parametrize("shape", [chain, fan])
def test_the_work_grows_with_the_stages_and_not_faster(shape: object) -> None:
    small, large = copies(shape(200)), copies(shape(1000))  # type: ignore[operator]
    assert large < small * 6
