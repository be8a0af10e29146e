"""The auditor sees every planted fault, and only those: a judge that never objects proves nothing."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from skyspan.model.error import Retry, StageError, ToolFailedError, UnreachableError
from skyspan.model.event import (
    AttemptFailed,
    CancelRequested,
    EffectIntended,
    Event,
    RecordedEvent,
    RetryDue,
    RetryScheduled,
    RunEnded,
    RunStarted,
    StageEnded,
    StageOutline,
    StageProgressed,
    StageStarted,
)
from skyspan.model.lifecycle import RunStatus, StageStatus, Verb
from skyspan.testing.simulator import Rule, audit, scenario, simulate

DOWN = UnreachableError("no answer").record()
BROKEN = ToolFailedError("it said no").record()
AT_ONCE = StageError("once more", retry=Retry.NOW).record()

Events = list[Event]


def stage(name: str, *needs: str, **policies: Any) -> StageOutline:
    return StageOutline(name, "planted", needs, **policies)


def begin(*stages: StageOutline, **policies: Any) -> RunStarted:
    return RunStarted(policies.pop("verb", Verb.UP), stages, **policies)


def start(name: str, attempt: int = 1) -> StageStarted:
    return StageStarted(name, attempt)


def intend(name: str, attempt: int = 1) -> EffectIntended:
    return EffectIntended(name, attempt, "apply")


def done(name: str, attempt: int = 1, status: StageStatus = StageStatus.SUCCEEDED, **more: Any) -> StageEnded:
    return StageEnded(name, attempt, status, **more)


def failed(name: str, attempt: int = 1, error: dict[str, str] = BROKEN) -> list[Event]:
    return [AttemptFailed(name, attempt, error), done(name, attempt, StageStatus.FAILED, error=error)]


def skipped(name: str, cause: str) -> StageEnded:
    return done(name, 0, StageStatus.SKIPPED, cause=cause)


def over(status: RunStatus = RunStatus.SUCCEEDED) -> RunEnded:
    return RunEnded(status)


def recorded(events: Sequence[Event]) -> list[RecordedEvent]:
    return [RecordedEvent("run", seq, 0.0, event) for seq, event in enumerate(events, 1)]


def rules(events: Sequence[Event]) -> set[Rule]:
    return {violation.rule for violation in audit(recorded(events))}


OK = StageStatus.SUCCEEDED
GONE_WELL: Events = [
    begin(stage("a"), stage("b", "a")),
    start("a"), intend("a"), done("a"), start("b"), intend("b"), done("b"), over(),
]  # fmt: skip
TRIED_AGAIN: Events = [
    begin(stage("a", attempts=3, backoff_s=4.0)),
    start("a"), AttemptFailed("a", 1, DOWN), RetryScheduled("a", 2, 4.0), RetryDue("a", 2),
    start("a", 2), AttemptFailed("a", 2, DOWN), RetryScheduled("a", 3, 8.0), RetryDue("a", 3),
    start("a", 3), done("a", 3), over(),
]  # fmt: skip
GONE_BADLY: Events = [
    begin(stage("a"), stage("b", "a"), stage("c", "b")),
    start("a"), *failed("a"), skipped("b", "a"), skipped("c", "a"), over(RunStatus.FAILED),
]  # fmt: skip
CANCELLED: Events = [
    begin(stage("a"), stage("b", "a")),
    start("a"), CancelRequested("me"), done("b", 0, StageStatus.CANCELLED),
    done("a", 1, StageStatus.CANCELLED), over(RunStatus.CANCELLED),
]  # fmt: skip
DEGRADED: Events = [
    begin(stage("a", best_effort=True), stage("b", "a")),
    start("a"), *failed("a"), start("b"), done("b"), over(RunStatus.DEGRADED),
]  # fmt: skip
FAILED_FAST: Events = [
    begin(stage("a"), stage("b"), stage("c"), concurrency=2, fail_fast=True),
    start("a"), start("b"), *failed("a"), skipped("c", "a"), done("b"), over(RunStatus.FAILED),
]  # fmt: skip
WOUND_UP: Events = [*CANCELLED[:-1], over(RunStatus.LOST)]
NOTHING_TOUCHED: Events = [begin(stage("a"), stage("b", "a")), start("a"), over(RunStatus.LOST)]
GAVE_UP: Events = [
    begin(stage("a", attempts=2), stage("b"), stage("c", "a"), fail_fast=True),
    start("a"), start("b"), AttemptFailed("a", 1, DOWN), RetryScheduled("a", 2, 2.0), *failed("b"),
    done("a", 1, StageStatus.FAILED, error=DOWN), skipped("c", "a"), over(RunStatus.FAILED),
]  # fmt: skip


@pytest.mark.parametrize(
    "events",
    [
        GONE_WELL,
        TRIED_AGAIN,
        GONE_BADLY,
        CANCELLED,
        DEGRADED,
        FAILED_FAST,
        GAVE_UP,
        WOUND_UP,
        NOTHING_TOUCHED,
        [begin(), over()],
    ],
)
def test_a_right_run_is_left_alone(events: Events) -> None:
    assert audit(recorded(events)) == ()


def change(events: Events, place: int, *put: Event) -> Events:
    """The events with those at `place` replaced."""
    place %= len(events)
    return [*events[:place], *put, *events[place + 1 :]]


def insert(events: Events, place: int, *put: Event) -> Events:
    return [*events[:place], *put, *events[place:]]


PLANTED: dict[str, tuple[Rule, Events]] = {
    "begins twice": (Rule.BEGINNING, insert(GONE_WELL, 1, GONE_WELL[0])),
    "never begins": (Rule.BEGINNING, GONE_WELL[1:]),
    "never ends": (Rule.ENDING, GONE_WELL[:-1]),
    "goes on after its end": (Rule.ENDING, [*GONE_WELL, CancelRequested("late")]),
    "ends twice": (Rule.ENDING, [*GONE_WELL, over()]),
    "is about a stranger": (Rule.KNOWN, insert(GONE_WELL, 2, start("stranger"))),
    "a stage never ends": (Rule.ONE_END, change(GONE_WELL, 6)),
    "a stage ends twice": (Rule.ONE_END, insert(GONE_WELL, 4, done("a"))),
    "a stage ends as running": (Rule.ONE_END, change(GONE_WELL, 6, done("b", status=StageStatus.RUNNING))),
    "a need comes later": (Rule.ORDER, [GONE_WELL[0], start("b"), done("b"), start("a"), done("a"), over()]),
    "starts after a failed need": (
        Rule.ORDER,
        [GONE_BADLY[0], start("a"), *failed("a"), start("b"), done("b"), start("c"), done("c"), over(RunStatus.FAILED)],
    ),
    "an attempt is left out": (Rule.ATTEMPTS, change(GONE_WELL, 1, start("a", 2))),
    "an attempt too many": (Rule.ATTEMPTS, change(TRIED_AGAIN, 0, begin(stage("a", attempts=2, backoff_s=4.0)))),
    "two attempts at once": (Rule.ATTEMPTS, insert(GONE_WELL, 2, start("a", 2))),
    "ends in another attempt": (Rule.ATTEMPTS, change(GONE_WELL, 3, done("a", 2))),
    "an effect of nobody": (Rule.RUNNING, insert(GONE_WELL, 1, intend("a"))),
    "progress of an old attempt": (
        Rule.RUNNING,
        insert(TRIED_AGAIN, 6, StageProgressed("a", 1, "vpc", "create", "done")),
    ),
    "succeeds without running": (Rule.RUNNING, change(GONE_BADLY, 4, done("b", 0))),
    "too many at once": (
        Rule.CONCURRENCY,
        change(FAILED_FAST, 0, begin(stage("a"), stage("b"), stage("c"), concurrency=1, fail_fast=True)),
    ),
    "starts when cancelled": (
        Rule.CLOSED,
        [
            begin(stage("a"), stage("b"), concurrency=1),
            start("a"),
            CancelRequested("me"),
            done("a"),
            start("b"),
            done("b"),
            over(),
        ],
    ),
    "starts after the first failure": (Rule.CLOSED, change(FAILED_FAST, 5, start("c"), done("c"))),
    "a stage is forgotten": (
        Rule.IDLE,
        [begin(stage("a"), stage("b")), start("a"), done("a"), start("b"), done("b"), over()],
    ),
    "a freed stage waits": (
        Rule.IDLE,
        [
            begin(stage("a"), stage("b", "a"), stage("c")),
            start("a"),
            start("c"),
            done("a"),
            done("c"),
            start("b"),
            done("b"),
            over(),
        ],
    ),
    "acts twice": (Rule.EFFECTS, insert(GONE_WELL, 3, intend("a"))),
    "acts and was unchanged": (Rule.EFFECTS, change(GONE_WELL, 3, done("a", status=StageStatus.UNCHANGED))),
    "acts and was left out": (Rule.EFFECTS, change(GONE_WELL, 3, done("a", status=StageStatus.SKIPPED))),
    "tries again what cannot pass": (Rule.RETRIES, change(TRIED_AGAIN, 2, AttemptFailed("a", 1, BROKEN))),
    "gives up what may pass": (
        Rule.RETRIES,
        [TRIED_AGAIN[0], start("a"), *failed("a", error=DOWN), over(RunStatus.FAILED)],
    ),
    "pauses too short": (Rule.RETRIES, change(TRIED_AGAIN, 7, RetryScheduled("a", 3, 4.0))),
    "pauses where it need not": (Rule.RETRIES, change(TRIED_AGAIN, 2, AttemptFailed("a", 1, AT_ONCE))),
    "starts again before its time": (Rule.RETRIES, change(TRIED_AGAIN, 4)),
    "a retry without a failure": (Rule.RETRIES, change(TRIED_AGAIN, 2)),
    "another retry is due": (Rule.RETRIES, change(TRIED_AGAIN, 4, RetryDue("a", 3))),
    "nothing follows from a failure": (
        Rule.RETRIES,
        [begin(stage("a"), stage("b")), start("a"), start("b"), AttemptFailed("a", 1, BROKEN), done("b"),
         done("a", 1, StageStatus.FAILED, error=BROKEN), over(RunStatus.FAILED)],
    ),
    "succeeds after a failure": (Rule.RETRIES, change(GONE_BADLY, 3, done("a"))),
    "fails with a stranger's error": (
        Rule.RETRIES,
        change(GONE_BADLY, 3, done("a", status=StageStatus.FAILED, error=DOWN)),
    ),
    "is skipped for a good end": (
        Rule.SKIPS,
        [begin(stage("a"), stage("b", "a")), start("a"), done("a"), skipped("b", "a"), over()],
    ),
    "is skipped for nothing": (
        Rule.SKIPS,
        [begin(stage("a")), done("a", 0, StageStatus.SKIPPED), over()],
    ),
    "is skipped for a stranger's failure": (
        Rule.SKIPS,
        [begin(stage("a"), stage("b")), start("a"), *failed("a"), skipped("b", "a"), over(RunStatus.FAILED)],
    ),
    "is cancelled by nobody": (Rule.CANCELS, change(CANCELLED, 2)),
    "what has not begun is not cancelled": (
        Rule.CANCELS,
        [*CANCELLED[:3], done("a", 1, StageStatus.CANCELLED), done("b", 0, StageStatus.CANCELLED), CANCELLED[-1]],
    ),
    "a failed run succeeds": (Rule.RESULT, change(GONE_BADLY, 6, over())),
    "a degraded run fails": (Rule.RESULT, change(DEGRADED, 6, over(RunStatus.FAILED))),
    "a lost stage is overlooked": (Rule.RESULT, change(GONE_WELL, 6, done("b", status=StageStatus.LOST))),
    "a run that touched something is lost": (Rule.RESULT, change(GONE_WELL, 7, over(RunStatus.LOST))),
    "a cancelled run fails": (Rule.RESULT, change(CANCELLED, 5, over(RunStatus.FAILED))),
}  # fmt: skip


@pytest.mark.parametrize(("rule", "events"), PLANTED.values(), ids=PLANTED.keys())
def test_a_planted_fault_is_seen(rule: Rule, events: Events) -> None:
    assert rule in rules(events)


def test_a_gap_a_swap_and_a_stranger_in_the_numbering_are_seen() -> None:
    right = recorded(GONE_WELL)
    for wrong in (
        [*right[:3], *right[4:]],
        [*right[:3], right[4], right[3], *right[5:]],
        [*right[:3], right[3], right[3], *right[4:]],
        [*right[:3], replace(right[3], run_id="another"), *right[4:]],
    ):
        assert Rule.NUMBERING in {violation.rule for violation in audit(wrong)}


def test_an_epoch_that_goes_back_is_seen() -> None:
    right = recorded(GONE_WELL)
    assert audit(right, epochs=[1, 1, 1, 2, 2, 4, 4, 4]) == ()
    for epochs in ([1, 1, 2, 1, 2, 2, 2, 2], [1] * 7):
        assert {violation.rule for violation in audit(right, epochs=epochs)} == {Rule.EPOCHS}


def test_an_output_that_is_not_on_record_is_seen() -> None:
    events = recorded(change(GONE_WELL, 3, done("a", outputs=("ip", "key"))))
    assert audit(events, outputs={"a": ("ip", "key", "older")}) == ()
    [violation] = audit(events, outputs={"a": ("ip",)})
    assert (violation.rule, violation.seq) == (Rule.OUTPUTS, 4)
    assert "key" in violation.seen


def test_every_rule_has_a_planted_fault() -> None:
    covered = {rule for rule, _ in PLANTED.values()} | {Rule.NUMBERING, Rule.EPOCHS, Rule.OUTPUTS}
    assert covered == set(Rule)


# Faults made by machine: whatever is taken from, repeated in or swapped within a recorded run has to be noticed.

Mutation = Callable[[random.Random, Events], Events]


def drop_one(chance: random.Random, events: Events) -> Events:
    place = chance.randrange(len(events))
    return [*events[:place], *events[place + 1 :]]


def repeat_one(chance: random.Random, events: Events) -> Events:
    place = chance.randrange(len(events))
    return [*events[: place + 1], *events[place:]]


def change_a_status(chance: random.Random, events: Events) -> Events:
    """The run's, or in a run that went well a stage's; elsewhere a stage could have ended in many ways."""
    last = events[-1]
    assert isinstance(last, RunEnded)
    if last.status is not RunStatus.SUCCEEDED or chance.random() < 0.3:
        others = [status for status in RunStatus if status not in (last.status, RunStatus.LOST)]
        return change(events, -1, replace(last, status=chance.choice(others)))
    place = chance.choice([place for place, event in enumerate(events) if isinstance(event, StageEnded)])
    event = events[place]
    assert isinstance(event, StageEnded)
    wrong = (StageStatus.FAILED, StageStatus.LOST, StageStatus.CANCELLED, StageStatus.PENDING)
    return change(events, place, replace(event, status=chance.choice(wrong)))


def swap_neighbours_of_one_stage(chance: random.Random, events: Events) -> Events:
    pairs = [
        (one, other)
        for one in range(1, len(events) - 1)
        for other in range(one + 1, len(events))
        if getattr(events[one], "stage", "") == getattr(events[other], "stage", None)
    ]
    one, other = chance.choice(pairs)
    swapped = list(events)
    swapped[one], swapped[other] = swapped[other], swapped[one]
    return swapped


@pytest.mark.parametrize(
    "mutate", [drop_one, repeat_one, change_a_status, swap_neighbours_of_one_stage], ids=lambda it: str(it.__name__)
)
def test_a_run_that_was_tampered_with_is_found_out(mutate: Mutation) -> None:
    tried = 0
    for seed in range(200):
        chance = random.Random(seed)
        run = simulate(scenario(seed))
        events = [item.event for item in run.recorded]
        if len(events) < 6:
            continue
        wrong = mutate(chance, events)
        if wrong == events or _harmless(mutate, events, wrong):
            continue
        tried += 1
        assert rules(wrong), f"{mutate.__name__} went unseen in seed {seed}: {unlike(events, wrong)}"
    assert tried > 100


def unlike(before: Events, after: Events) -> str:
    """Where two lists of events part."""
    for place, (one, other) in enumerate(zip(before, after, strict=False), 1):
        if one != other:
            return f"{place}: {one} and {other}"
    return "one ends before the other"


def _harmless(mutate: Mutation, before: Events, after: Events) -> bool:
    """What nobody can see, because the run could have gone that way: an intent or a cancellation too few or many."""
    if mutate is drop_one:
        place = next((index for index, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]), -1)
        gone = before[place]
        again = sum(isinstance(event, CancelRequested) for event in before) > 1
        # A failure that nothing but the end follows may have been reported as that end.
        final = isinstance(gone, AttemptFailed) and isinstance(before[place + 1], StageEnded)
        return isinstance(gone, EffectIntended) or final or (isinstance(gone, CancelRequested) and again)
    if mutate is repeat_one:
        extra = next((event for event in after if after.count(event) > before.count(event)), None)
        return isinstance(extra, CancelRequested)
    return False
