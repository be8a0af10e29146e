"""When a watched link counts as down, and what is tried about it, one step at a time."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from skyspan.contracts.watch import Passage, Repair
from skyspan.engine.supervise import (
    MOST_RESTARTS,
    RESTARTS_WITHIN_S,
    SETTLE_S,
    Health,
    Turn,
    Watch,
    exhausted,
    next_repair,
    probed,
    repaired,
)

STEPS = (Repair("reapply", "a"), Repair("reapply", "b"), Repair("restart", "a"), Repair("restart", "b"))


def seen(passed: bool | None, other: bool | None = True) -> tuple[Passage, ...]:
    return Passage("a", "b", passed), Passage("b", "a", other)


def after(found: Sequence[tuple[Passage, ...]], watch: Watch | None = None) -> tuple[Watch, list[Turn]]:
    """The watch after probes at one per second, and what was told."""
    state, turns = watch or Watch(), []
    for now, passages in enumerate(found):
        state, turn = probed(state, passages, float(now))
        if turn is not None:
            turns.append(turn)
    return state, turns


def test_one_miss_is_nothing_two_degrade_and_three_are_down() -> None:
    state, turns = after([seen(True), seen(False), seen(True), seen(False), seen(False), seen(False)])
    assert [(turn.before, turn.health) for turn in turns] == [
        (Health.UNKNOWN, Health.UP),
        (Health.UP, Health.DEGRADED),
        (Health.DEGRADED, Health.DOWN),
    ]
    assert [passage.source for passage in turns[-1].failing] == ["a"]
    assert state.down_since == 5.0


def test_one_direction_that_fails_is_enough() -> None:
    state, _ = after([seen(True, False)] * 3)
    assert state.health is Health.DOWN


def test_a_link_whose_end_cannot_be_asked_is_unknown_and_left_alone() -> None:
    state, _ = after([seen(True), seen(None), seen(None), seen(None), seen(None)])
    assert state.health is Health.UNKNOWN
    assert next_repair(state, STEPS, ("a",), 9.0) is None


def test_an_end_that_cannot_be_asked_does_not_hide_a_direction_that_fails() -> None:
    state, _ = after([seen(False, None)] * 3)
    assert state.health is Health.DOWN


def test_a_suspect_is_tried_first_and_whole_then_the_others() -> None:
    state, _ = after([seen(False)] * 3)
    tried = []
    now = 3.0
    while (step := next_repair(state, STEPS, ("b",), now)) is not None:
        tried.append((step.name, step.host))
        state = repaired(state, step, now)
        assert next_repair(state, STEPS, ("b",), now + SETTLE_S / 2) is None, "it gets its time to show"
        now += SETTLE_S
    assert tried == [("reapply", "b"), ("restart", "b"), ("reapply", "a"), ("restart", "a")]


def test_rounds_are_further_and_further_apart() -> None:
    state, _ = after([seen(False)] * 3)
    pauses = []
    now = 3.0
    for _ in range(10):
        while (step := next_repair(state, STEPS[:2], (), now)) is not None:
            state = repaired(state, step, now)
            now += SETTLE_S
        state = exhausted(state, STEPS[:2], now, jitter=1.0)
        pauses.append(state.not_before - now)
        now = state.not_before
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]


def test_a_link_that_came_back_begins_anew_and_tells_how_long_it_was_down() -> None:
    state, _ = after([seen(False)] * 3)
    state = repaired(state, STEPS[0], 3.0)
    state, turn = probed(state, seen(True), 7.0)
    assert turn == Turn(Health.UP, Health.DOWN, 5.0)
    assert (state.tried, state.rounds, state.down_since) == ((), 0, None)


@given(st.lists(st.tuples(st.sampled_from([True, False, None]), st.floats(0, 1)), max_size=900))
def test_whatever_happens_repairs_are_apart_and_restarts_are_bounded(history: list[tuple[bool | None, float]]) -> None:
    state = Watch()
    restarts: list[float] = []
    last = -SETTLE_S
    for second, (passed, jitter) in enumerate(history):
        now = float(second)
        state, _ = probed(state, seen(passed), now)
        step = next_repair(state, STEPS, (), now)
        if step is None:
            state = exhausted(state, STEPS, now, jitter)
            continue
        assert passed is False, "what is not known to be down is not repaired"
        assert now - last >= SETTLE_S
        last = now
        state = repaired(state, step, now)
        if step.name == "restart":
            restarts.append(now)
            assert len([at for at in restarts if now - at < RESTARTS_WITHIN_S]) <= MOST_RESTARTS
