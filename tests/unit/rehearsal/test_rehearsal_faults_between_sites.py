from __future__ import annotations

import pytest

from skyspan.model.error import UsageError
from skyspan.rehearsal.faults.between_sites import Faults, changed, rules

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
    "words",
    [
        *("cut cloud", "cut cloud mars", "cut lab lab", "loss cloud lab much", "mtu lab 12", "melt"),
        *("rebind lab", "dns gw", "dns gw gone", "dns gw 1.2.3"),
    ],
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


def test_rebinding_gives_the_shared_address_other_ports_and_comes_round() -> None:
    seen = [rules(after("nat lab", *["rebind lab"] * times)) for times in range(11)]
    assert "masquerade to :20000-23999" in seen[0]
    assert "masquerade to :24000-27999" in seen[1]
    assert "masquerade to :56000-59999" in seen[9]
    assert seen[10] == seen[0]


def test_nat_that_is_there_already_stays_as_it_is() -> None:
    assert after("nat lab", "rebind lab", "nat lab") == after("nat lab", "rebind lab")


def test_answers_of_the_name_server_are_swapped_and_brought_back() -> None:
    assert after("dns GW.example.org. 203.0.113.9", "dns other nowhere").names == {
        "gw.example.org": "203.0.113.9",
        "other": None,
    }
    assert after("dns gw 203.0.113.9", "clear") == Faults()
