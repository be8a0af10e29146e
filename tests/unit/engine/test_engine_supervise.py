"""When a watched link counts as down, and what is tried about it, one step at a time."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from skyspan.contracts.watch import Cause, Finding, Passage, Repair
from skyspan.engine.supervise import (
    MOST_RESTARTS,
    PATIENCE_S,
    RESTARTS_WITHIN_S,
    Evidence,
    Health,
    Turn,
    Watch,
    condemned,
    exhausted,
    next_repair,
    postponed,
    probed,
    repaired,
)

STEPS = (Repair("reapply", "a"), Repair("reapply", "b"), Repair("restart", "a"), Repair("restart", "b"))

NOTHING = Evidence()
SHOWS_S = STEPS[0].shows_in_s


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
    assert next_repair(state, STEPS, Evidence(("a",)), 9.0) is None


def test_an_end_that_cannot_be_asked_does_not_hide_a_direction_that_fails() -> None:
    state, _ = after([seen(False, None)] * 3)
    assert state.health is Health.DOWN


def test_what_a_host_says_of_itself_needs_one_miss_alone() -> None:
    state, _ = after([seen(True), seen(False)])
    gone = Evidence.of([Finding(Cause.DAEMON_DOWN, "b", "it does not run")])
    assert condemned(state, NOTHING, 1.5) == (state, None)
    down, turn = condemned(state, gone, 1.5)
    assert turn is not None
    assert (turn.before, turn.health, down.down_since) == (Health.UP, Health.DOWN, 1.5)
    assert next_repair(down, STEPS, gone, 1.5) == Repair("reapply", "b")
    # More misses tell nothing new, and a link that came back is not condemned any more.
    again, turn = probed(down, seen(False), 2.0)
    assert (again.health, turn) == (Health.DOWN, None)
    well, _ = probed(down, seen(True), 3.0)
    assert condemned(well, gone, 3.1) == (well, None)


def test_what_is_gone_comes_first_among_the_suspects() -> None:
    found = [
        Finding(Cause.SERVICE_DOWN, "a", "no session"),
        Finding(Cause.INTERFACE_MISSING, "b", "gone"),
        Finding(Cause.SERVICE_DOWN, "b", "no session"),
    ]
    assert Evidence.of(found) == Evidence(("b", "a"), ("b",))


def test_a_suspect_is_tried_first_and_whole_then_the_others() -> None:
    state, _ = after([seen(False)] * 3)
    tried = []
    evidence = Evidence(("b",))
    now = state.down_since + PATIENCE_S if state.down_since is not None else 0.0
    while (step := next_repair(state, STEPS, evidence, now)) is not None:
        tried.append((step.name, step.host))
        state = repaired(state, step, evidence, now)
        assert next_repair(state, STEPS, evidence, now + SHOWS_S / 2) is None, "it gets its time to show"
        now += SHOWS_S
    assert tried == [("reapply", "b"), ("restart", "b"), ("reapply", "a"), ("restart", "a")]


def test_nothing_is_restarted_early_but_what_is_gone() -> None:
    state, _ = after([seen(False)] * 3)
    restarts = STEPS[2:]
    assert next_repair(state, restarts, Evidence(("a",)), 2.0 + PATIENCE_S / 2) is None
    assert next_repair(state, restarts, Evidence(("a",)), 2.0 + PATIENCE_S) == Repair("restart", "a")
    assert next_repair(state, restarts, Evidence(("b",), ("b",)), 2.0) == Repair("restart", "b")


def test_an_end_that_still_carries_traffic_is_not_restarted() -> None:
    ways = [("hub", "a", True), ("a", "hub", True), ("hub", "b", False), ("b", "hub", False)]
    found = tuple(Passage(*way) for way in ways)
    state, _ = after([found] * 3)
    later = 2.0 + PATIENCE_S
    assert next_repair(state, (Repair("restart", "hub"), Repair("restart", "b")), NOTHING, later) == Repair(
        "restart", "b"
    )
    # One direction alone is no traffic.
    half = tuple(Passage(*way) for way in [("hub", "a", True), ("a", "hub", False)])
    state, _ = after([half] * 3)
    assert next_repair(state, (Repair("restart", "hub"),), NOTHING, later) == Repair("restart", "hub")


def test_the_next_one_that_is_gone_is_mended_at_once() -> None:
    state, _ = after([seen(False)] * 3)
    both = Evidence(("a", "b"), ("a", "b"))
    state = repaired(state, STEPS[0], both, 3.0)
    assert next_repair(state, STEPS, both, 3.0) == Repair("reapply", "b"), "no packet passes with one of two"
    state = repaired(state, STEPS[1], both, 4.0)
    assert next_repair(state, STEPS, both, 4.0 + SHOWS_S / 2) is None


def test_a_repair_that_says_that_it_failed_needs_no_time_to_show() -> None:
    state, _ = after([seen(False)] * 3)
    state = repaired(state, STEPS[0], NOTHING, 3.0, worked=False)
    assert next_repair(state, STEPS, NOTHING, 3.0) == STEPS[1]


def test_looking_for_the_other_end_makes_nothing_that_is_gone() -> None:
    state, _ = after([seen(False)] * 3)
    steps = (Repair("re-initiate", "a"), Repair("reapply", "b"))
    assert next_repair(state, steps, NOTHING, 3.0) == steps[0]
    assert next_repair(state, steps, Evidence(("b",), ("b",)), 3.0) == steps[1]


def test_nothing_is_done_about_ends_that_skyspan_cannot_reach() -> None:
    """A site that is cut off from everything is no fault of the link to it."""
    state, _ = after([seen(False, None)] * 3)
    assert state.health is Health.DOWN
    assert next_repair(state, STEPS, Evidence(("a", "b"), ("b",)), 99.0) is None
    # The same hub repairs what it can reach.
    found = (*seen(False, None), Passage("a", "c", False), Passage("c", "a", False))
    state, _ = after([found] * 3)
    assert next_repair(state, STEPS, NOTHING, 99.0) is not None


def test_what_is_postponed_counts_as_not_tried() -> None:
    state, _ = after([seen(False)] * 3)
    later = postponed(state, 3.0)
    assert next_repair(later, STEPS, NOTHING, 3.5) is None
    assert next_repair(later, STEPS, NOTHING, 6.0) == STEPS[0]


def test_rounds_are_further_and_further_apart() -> None:
    state, _ = after([seen(False)] * 3)
    pauses = []
    now = 3.0
    for _ in range(10):
        while (step := next_repair(state, STEPS[:2], NOTHING, now)) is not None:
            state = repaired(state, step, NOTHING, now)
            now += SHOWS_S
        state = exhausted(state, STEPS[:2], now, jitter=1.0)
        pauses.append(state.not_before - now)
        now = state.not_before
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]


def test_a_link_that_came_back_begins_anew_and_tells_how_long_it_was_down() -> None:
    state, _ = after([seen(False)] * 3)
    state = repaired(state, STEPS[0], NOTHING, 3.0)
    state, turn = probed(state, seen(True), 7.0)
    assert turn == Turn(Health.UP, Health.DOWN, 5.0)
    assert (state.tried, state.rounds, state.down_since) == ((), 0, None)


@given(
    st.lists(st.tuples(st.sampled_from([True, False, None]), st.floats(0, 1), st.booleans()), max_size=900),
    st.sampled_from([NOTHING, Evidence(("b",)), Evidence(("a", "b"), ("a", "b"))]),
)
def test_whatever_happens_repairs_are_apart_and_restarts_are_bounded(
    history: list[tuple[bool | None, float, bool]], evidence: Evidence
) -> None:
    state = Watch()
    restarts: list[float] = []
    soonest = 0.0
    for second, (passed, jitter, worked) in enumerate(history):
        now = float(second)
        state, _ = probed(state, seen(passed), now)
        if passed is not False:
            soonest = 0.0
        step = next_repair(state, STEPS, evidence, now)
        if step is None:
            state = exhausted(state, STEPS, now, jitter)
            continue
        assert passed is False, "what is not known to be down is not repaired"
        assert now >= soonest
        others = set(evidence.gone) - {one.host for one in (*state.tried, step)}
        soonest = now if not worked or others else now + SHOWS_S
        state = repaired(state, step, evidence, now, worked=worked)
        if step.name == "restart":
            restarts.append(now)
            assert len([at for at in restarts if now - at < RESTARTS_WITHIN_S]) <= MOST_RESTARTS
