"""What the engine decides, event by event."""

from __future__ import annotations

from typing import Any

import pytest

from skyspan.engine import NEW, BeginAttempt, Finish, RunState, StopAttempt, Wake, decide, restore
from skyspan.engine.effect import Step
from skyspan.model.error import Retry, StageError, ToolFailedError, UnreachableError
from skyspan.model.event import (
    AttemptFailed,
    CancelRequested,
    EffectIntended,
    Event,
    RetryDue,
    RetryScheduled,
    RunEnded,
    RunStarted,
    StageEnded,
    StageOutline,
    StagePlanned,
    StageStarted,
)
from skyspan.model.lifecycle import RunStatus, StageStatus, Verb

DOWN = UnreachableError("no answer").record()
BROKEN = ToolFailedError("it said no").record()


def stage(name: str, *needs: str, **policies: Any) -> StageOutline:
    return StageOutline(name, "scripted", needs, **policies)


def begin(*stages: StageOutline, **policies: Any) -> Step:
    return decide(NEW, RunStarted(policies.pop("verb", Verb.UP), stages, **policies))


def after(step: Step, *events: Event) -> Step:
    for event in events:
        step = decide(step.state, event)
    return step


def done(name: str, attempt: int = 1, status: StageStatus = StageStatus.SUCCEEDED, **more: Any) -> StageEnded:
    return StageEnded(name, attempt, status, **more)


def failed(name: str, attempt: int = 1) -> AttemptFailed:
    return AttemptFailed(name, attempt, BROKEN)


def begun(step: Step) -> list[str]:
    return [effect.stage for effect in step.effects if isinstance(effect, BeginAttempt)]


def ends(step: Step) -> dict[str, StageEnded]:
    return {event.stage: event for event in step.events if isinstance(event, StageEnded)}


def result(step: Step) -> RunEnded:
    ended = step.state.ended
    assert ended is not None
    return ended


def test_a_run_begins_with_what_needs_nothing() -> None:
    step = begin(stage("c", "a", "b"), stage("a"), stage("b"))
    assert begun(step) == ["a", "b"]
    assert [event.kind for event in step.events] == ["run_started", "stage_started", "stage_started"]


def test_the_end_of_one_stage_and_the_start_of_the_next_are_one_step() -> None:
    step = after(begin(stage("a"), stage("b", "a")), done("a"))
    assert step.events == (done("a"), StageStarted("b", 1))
    assert step.effects == (BeginAttempt("b", 1, None),)


def test_a_stage_waits_for_everything_it_needs() -> None:
    step = begin(stage("a"), stage("b"), stage("c", "a", "b"))
    step = after(step, done("b"))
    assert begun(step) == []
    assert begun(after(step, done("a"))) == ["c"]


def test_needs_outside_the_run_do_not_count() -> None:
    assert begun(begin(stage("b", "a"))) == ["b"]


def test_a_stage_that_names_a_need_twice_waits_for_it_once() -> None:
    assert begun(after(begin(stage("a"), stage("b", "a", "a")), done("a"))) == ["b"]


def test_the_timeout_travels_with_the_attempt() -> None:
    assert begin(stage("a", timeout_s=5.0)).effects == (BeginAttempt("a", 1, 5.0),)


def test_the_run_ends_with_its_last_stage() -> None:
    step = after(begin(stage("a")), done("a"))
    assert step.events[-1] == RunEnded(RunStatus.SUCCEEDED)
    assert step.effects == (Finish(RunStatus.SUCCEEDED),)


@pytest.mark.parametrize("status", [StageStatus.UNCHANGED, StageStatus.STOPPED, StageStatus.DESTROYED])
def test_every_good_end_lets_dependents_go_on(status: StageStatus) -> None:
    assert begun(after(begin(stage("a"), stage("b", "a")), done("a", status=status))) == ["b"]


def test_no_more_than_the_limit_run_at_once_and_the_first_in_line_goes_first() -> None:
    step = begin(*(stage(name) for name in "abcd"), concurrency=2)
    assert begun(step) == ["a", "b"]
    step = after(step, done("b"))
    assert begun(step) == ["c"]
    assert begun(after(step, done("c"))) == ["d"]


def test_a_failure_skips_all_that_wait_for_it_and_names_the_root() -> None:
    step = begin(stage("cloud"), stage("link", "cloud"), stage("check", "link"), stage("lab"))
    step = after(step, failed("cloud"))
    skipped = ends(step)
    assert skipped["cloud"].status is StageStatus.FAILED
    assert skipped["cloud"].error == BROKEN
    for name in ("link", "check"):
        assert (skipped[name].status, skipped[name].cause) == (StageStatus.SKIPPED, "cloud")
        assert skipped[name].reason == "cloud failed"
    step = after(step, done("lab"))
    assert result(step) == RunEnded(RunStatus.FAILED, "cloud failed, 2 skipped")


def test_a_stage_with_two_failing_needs_is_skipped_once() -> None:
    step = after(begin(stage("a"), stage("b"), stage("c", "a", "b")), failed("a"))
    assert set(ends(step)) == {"a", "c"}
    assert set(ends(after(step, failed("b")))) == {"b"}


def test_dependents_of_a_best_effort_failure_go_on() -> None:
    step = after(begin(stage("a", best_effort=True), stage("b", "a")), failed("a"))
    assert begun(step) == ["b"]
    assert result(after(step, done("b"))) == RunEnded(RunStatus.DEGRADED, "a failed (best effort)")


def test_a_skipped_best_effort_stage_lets_its_dependents_go_on() -> None:
    step = after(begin(stage("a"), stage("b", "a", best_effort=True), stage("c", "b")), failed("a"))
    assert ends(step)["b"].cause == "a"
    assert begun(step) == ["c"]


def test_a_stage_left_out_by_its_condition_lets_its_dependents_go_on() -> None:
    step = after(begin(stage("a"), stage("b", "a")), done("a", status=StageStatus.SKIPPED, reason="if is false"))
    assert begun(step) == ["b"]
    assert result(after(step, done("b"))).status is RunStatus.SUCCEEDED


def test_a_stage_that_cannot_do_without_a_best_effort_value_hands_the_cause_on() -> None:
    stages = (stage("a", best_effort=True), stage("b", "a"), stage("c", "b"))
    lacking = done("b", status=StageStatus.SKIPPED, cause="a", reason="a failed")
    step = after(begin(*stages), failed("a"), lacking)
    assert (ends(step)["c"].cause, ends(step)["c"].reason) == ("a", "a failed")
    assert result(step).status is RunStatus.DEGRADED


def test_a_lost_stage_fails_the_run() -> None:
    step = after(begin(stage("a"), stage("b", "a")), done("a", status=StageStatus.LOST))
    assert ends(step)["b"].reason == "a was lost"
    assert result(step).status is RunStatus.FAILED


def test_many_failures_are_told_in_few_words() -> None:
    names = "abcde"
    step = after(begin(*(stage(name) for name in names)), *(failed(name) for name in names))
    assert result(step).reason == "a, b, c and 2 more failed"


def test_a_failure_that_may_pass_is_tried_again_after_a_doubling_pause() -> None:
    step = after(begin(stage("a", attempts=4, backoff_s=2.0)), AttemptFailed("a", 1, DOWN))
    assert step.events == (AttemptFailed("a", 1, DOWN), RetryScheduled("a", 2, 2.0))
    assert step.effects == (Wake("a", 2, 2.0),)
    step = after(step, RetryDue("a", 2))
    assert step.effects == (BeginAttempt("a", 2, None),)
    step = after(step, AttemptFailed("a", 2, DOWN))
    assert step.effects == (Wake("a", 3, 4.0),)
    step = after(step, RetryDue("a", 3), done("a", 3))
    assert result(step).status is RunStatus.SUCCEEDED


def test_the_pause_is_never_longer_than_a_minute() -> None:
    step = begin(stage("a", attempts=100, backoff_s=10.0))
    pauses = []
    for attempt in range(1, 100):
        step = after(step, AttemptFailed("a", attempt, DOWN))
        pauses += [effect.delay_s for effect in step.effects if isinstance(effect, Wake)]
        step = after(step, RetryDue("a", attempt + 1))
    assert pauses[:4] == [10.0, 20.0, 40.0, 60.0]
    assert max(pauses) == 60.0
    assert ends(after(step, AttemptFailed("a", 100, DOWN)))["a"].status is StageStatus.FAILED


def test_a_failure_for_good_is_not_tried_again_unless_every_one_is() -> None:
    assert ends(after(begin(stage("a", attempts=3)), failed("a")))["a"].status is StageStatus.FAILED
    assert after(begin(stage("a", attempts=3, retry_any=True)), failed("a")).effects == (Wake("a", 2, 2.0),)


def test_a_retry_may_be_due_at_once() -> None:
    at_once = StageError("again", retry=Retry.NOW).record()
    assert after(begin(stage("a", attempts=2)), AttemptFailed("a", 1, at_once)).effects == (Wake("a", 2, 0.0),)


def test_a_stage_that_waits_to_be_tried_again_leaves_its_place_to_others() -> None:
    step = begin(stage("a", attempts=2), stage("b"), concurrency=1)
    step = after(step, AttemptFailed("a", 1, DOWN))
    assert begun(step) == ["b"]
    step = after(step, RetryDue("a", 2))
    assert begun(step) == []
    assert begun(after(step, done("b"))) == ["a"]


def test_failing_fast_starts_nothing_more_and_lets_the_rest_finish() -> None:
    step = begin(stage("bad"), stage("long"), stage("later", "long"), stage("idle"), fail_fast=True, concurrency=2)
    step = after(step, failed("bad"))
    assert {name: end.cause for name, end in ends(step).items()} == {"bad": "", "later": "bad", "idle": "bad"}
    assert step.state.ended is None
    step = after(step, done("long"))
    assert begun(step) == []
    assert result(step).status is RunStatus.FAILED


def test_failing_fast_gives_up_what_waits_to_be_tried_again() -> None:
    step = begin(stage("flaky", attempts=3), stage("after", "flaky"), stage("bad"), fail_fast=True)
    step = after(step, AttemptFailed("flaky", 1, DOWN), failed("bad"))
    assert ends(step)["flaky"].status is StageStatus.FAILED
    assert ends(step)["flaky"].error == DOWN
    assert ends(step)["after"].status is StageStatus.SKIPPED
    assert result(step).status is RunStatus.FAILED
    assert after(step, RetryDue("flaky", 2)).events == ()


def test_failing_fast_gives_up_a_best_effort_retry_and_what_it_would_have_freed() -> None:
    stages = (stage("after", "soft"), stage("soft", attempts=3, best_effort=True), stage("bad"))
    step = after(begin(*stages, fail_fast=True), AttemptFailed("soft", 1, DOWN), failed("bad"))
    assert ends(step)["after"].status is StageStatus.SKIPPED
    assert result(step).status is RunStatus.FAILED


def test_a_best_effort_failure_does_not_fail_fast() -> None:
    step = begin(stage("soft", best_effort=True), stage("b", "soft"), fail_fast=True)
    assert begun(after(step, failed("soft"))) == ["b"]


def test_cancelling_stops_what_runs_and_ends_what_waits() -> None:
    step = after(begin(stage("a"), stage("b", "a")), CancelRequested("me"))
    assert step.effects == (StopAttempt("a", 1),)
    assert ends(step)["b"].status is StageStatus.CANCELLED
    step = after(step, done("a", status=StageStatus.CANCELLED))
    assert result(step) == RunEnded(RunStatus.CANCELLED, "cancelled by me")


def test_cancelling_again_stops_again() -> None:
    step = after(begin(stage("a")), CancelRequested("me"), CancelRequested("me"))
    assert step.effects == (StopAttempt("a", 1),)
    assert step.events == (CancelRequested("me"),)


def test_cancelling_ends_what_waits_to_be_tried_again() -> None:
    step = after(begin(stage("a", attempts=3)), AttemptFailed("a", 1, DOWN), CancelRequested("me"))
    assert ends(step)["a"].status is StageStatus.CANCELLED
    assert "no answer" in ends(step)["a"].reason
    assert result(step).status is RunStatus.CANCELLED


def test_nothing_is_tried_again_once_cancelled() -> None:
    step = after(begin(stage("a", attempts=3)), CancelRequested("me"), AttemptFailed("a", 1, DOWN))
    assert ends(step)["a"].status is StageStatus.FAILED


def test_a_cancelled_run_in_which_everything_was_done_has_succeeded() -> None:
    step = after(begin(stage("a")), CancelRequested("me"), done("a"))
    assert result(step).status is RunStatus.SUCCEEDED


def test_a_check_looks_at_every_stage_whatever_the_others_show() -> None:
    step = begin(stage("a"), stage("b", "a"), verb=Verb.CHECK)
    assert begun(step) == ["a", "b"]
    assert set(ends(after(step, failed("a")))) == {"a"}


@pytest.mark.parametrize(
    "late",
    [
        done("a", attempt=2),
        done("b"),
        done("nobody"),
        AttemptFailed("a", 2, DOWN),
        RetryDue("a", 2),
        StagePlanned("b", 1, {}),
        EffectIntended("a", 9, "apply"),
        StageStarted("b", 1),
        RunEnded(RunStatus.SUCCEEDED),
        RunStarted(Verb.UP, ()),
    ],
    ids=repr,
)
def test_what_cannot_belong_to_the_run_any_more_is_dropped(late: Event) -> None:
    step = begin(stage("a"), stage("b", "a"))
    assert decide(step.state, late) == Step(step.state)


def test_nothing_counts_after_the_end() -> None:
    step = after(begin(stage("a")), done("a"))
    assert after(step, CancelRequested("me")).events == ()
    assert after(step, done("a")).events == ()


def test_nothing_counts_before_the_start() -> None:
    assert decide(NEW, done("a")).events == ()
    assert decide(NEW, CancelRequested("me")).events == ()


def test_an_intent_is_known_until_the_next_attempt() -> None:
    step = after(begin(stage("a", attempts=2)), EffectIntended("a", 1, "apply"))
    assert step.state.stage("a").intent == "apply"
    step = after(step, AttemptFailed("a", 1, DOWN), RetryDue("a", 2))
    assert step.state.stage("a").intent == ""


def test_stages_that_wait_for_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="wait for each other: a, b"):
        begin(stage("a", "b"), stage("b", "a"), stage("c"))
    with pytest.raises(ValueError, match="in the run twice"):
        begin(stage("a"), stage("a"))


def test_a_state_is_never_changed_by_deciding() -> None:
    state = begin(stage("a"), stage("b", "a")).state
    copy = RunState(**{name: getattr(state, name) for name in RunState.__dataclass_fields__})
    decide(state, done("a"))
    decide(state, failed("a"))
    assert state == copy


def test_the_recorded_events_alone_give_the_state_back() -> None:
    recorded: list[Event] = []
    step = begin(stage("a", attempts=2), stage("b", "a"), stage("c"))
    recorded += step.events
    for event in (AttemptFailed("a", 1, DOWN), done("c"), RetryDue("a", 2), done("a", 2), failed("b")):
        step = decide(step.state, event)
        recorded += step.events
    assert restore(recorded) == step.state
