"""What a meter says of probes: availability, outages, time to repair."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyspan.contracts.watch import Passage
from skyspan.engine.meter import (
    Mended,
    Meter,
    allowance_s,
    availability,
    longest_outage_s,
    measured,
    mended,
    named,
    outage_count,
    outages_of,
    repair_times_s,
)


def watched(history: list[tuple[bool | None, bool | None]], fault: str = "") -> Meter:
    meter = Meter()
    for second, (there, back) in enumerate(history):
        found = (Passage("a", "b", there), Passage("b", "a", back))
        meter = measured(meter, found, float(second), 1.0, fault)
    return meter


def test_the_worst_direction_counts() -> None:
    meter = watched([(True, True), (False, True), (False, True), (True, True)])
    assert availability(meter) == 0.5
    assert longest_outage_s(meter) == 2.0


def test_seconds_in_which_nobody_could_ask_count_as_neither() -> None:
    assert availability(watched([(True, True), (None, None), (None, None), (True, True)])) == 1.0
    assert availability(Meter()) == 1.0


def test_an_outage_that_lasts_counts_for_availability_and_not_for_repair() -> None:
    meter = watched([(True, True), (False, True)])
    assert availability(meter) == 0.5
    assert (longest_outage_s(meter), repair_times_s(meter)) == (0.0, {})


def test_an_outage_that_lasts_is_as_long_as_it_was_seen() -> None:
    meter = watched([(True, True), (False, True), (False, True), (False, True)])
    assert longest_outage_s(meter) == 2.0
    assert mended(meter) == {}


def test_each_direction_has_its_own_measure() -> None:
    meter = watched([(True, True), (False, True), (False, True), (True, True)])
    assert (availability(meter, ("a", "b")), availability(meter, ("b", "a"))) == (0.5, 1.0)
    assert (longest_outage_s(meter, ("a", "b")), longest_outage_s(meter, ("b", "a"))) == (2.0, 0.0)
    assert (len(outages_of(meter, ("a", "b"))), outages_of(meter, ("b", "a"))) == (1, ())


def test_directions_that_fail_together_are_one_outage() -> None:
    meter = watched([(True, True), (False, True), (False, False), (True, False), (True, True), (False, True)])
    assert outage_count(meter) == 2
    assert mended(meter) == {"": Mended(1, 3.0, 3.0)}


def test_a_cause_that_is_found_later_names_the_outages_that_go_on() -> None:
    meter = named(watched([(True, False), (True, True), (False, True)]), "cut")
    meter = measured(meter, (Passage("a", "b", True),), 4.0, 1.0)
    assert {fault: told.mean_s for fault, told in mended(meter).items()} == {"": 1.0, "cut": 2.0}
    assert named(meter, "other") == meter


def test_repair_times_are_told_by_fault() -> None:
    meter = watched([(True, True), (False, False), (True, True)], fault="cut")
    assert repair_times_s(meter) == {"cut": 1.0}


def test_three_nines_leave_forty_three_minutes_a_month() -> None:
    assert allowance_s(0.999) / 60 == pytest.approx(43.2)


@given(st.lists(st.tuples(*[st.sampled_from([True, False, None])] * 2), max_size=200))
def test_failed_seconds_are_those_of_failed_probes(history: list[tuple[bool | None, bool | None]]) -> None:
    meter = watched(history)
    for place, way in enumerate((("a", "b"), ("b", "a"))):
        answers = [entry[place] for entry in history]
        assert meter.failed.get(way, 0) == answers.count(False)
        assert meter.watched.get(way, 0) == answers.count(False) + answers.count(True)
    assert 0.0 <= availability(meter) <= 1.0
