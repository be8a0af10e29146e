from __future__ import annotations

import pytest

from skyspan.model.error import UsageError
from skyspan.rehearsal.faults import Faults, changed, rules

SITES = ("cloud", "lab")


def after(*instructions: str) -> Faults:
    faults = Faults()
    for instruction in instructions:
        faults = changed(faults, instruction.split(), SITES)
    return faults


def test_a_cut_drops_both_directions() -> None:
    text = rules(after("cut cloud lab"))
    assert 'iifname "s-cloud" oifname "s-lab" drop' in text
    assert 'iifname "s-lab" oifname "s-cloud" drop' in text


def test_restoring_takes_a_cut_and_a_loss_away() -> None:
    assert after("cut cloud lab", "loss cloud lab 10", "restore lab cloud") == Faults()


def test_a_loss_is_a_share_of_the_packets() -> None:
    assert "numgen random mod 1000 < 125 drop" in rules(after("loss cloud lab 12.5"))


def test_long_packets_are_dropped_without_a_word() -> None:
    assert 'oifname "s-lab" meta length > 1380 drop' in rules(after("mtu lab 1380"))


def test_the_place_where_skyspan_runs_can_be_cut_off_too() -> None:
    assert 'iifname "control" oifname "s-lab" drop' in rules(after("cut control lab"))


def test_clearing_mends_everything() -> None:
    assert after("cut cloud lab", "mtu lab 1380", "clear") == Faults()


@pytest.mark.parametrize(
    "words", ["cut cloud", "cut cloud mars", "cut lab lab", "loss cloud lab much", "mtu lab 12", "melt"]
)
def test_an_instruction_that_makes_no_sense_is_refused_with_what_to_write(words: str) -> None:
    with pytest.raises(UsageError) as refused:
        after(words)
    assert refused.value.hint


def test_a_site_behind_nat_calls_and_is_not_called() -> None:
    text = rules(after("nat lab"))
    assert 'iifname "s-lab" oifname != "control" masquerade' in text
    assert 'iifname != { "control", "s-lab" } oifname "s-lab" ct state new drop' in text
    assert after("nat lab", "clear") == Faults()
