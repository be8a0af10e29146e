"""A declared trouble: what a check and an up have to say for it to count as told, and as repaired alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest

from skyspan.contracts.transport import Completed
from skyspan.rehearsal.faults.between_sites import Faults
from skyspan.rehearsal.faults.on_hosts import Kill
from skyspan.rehearsal.faults.words import meaning, mistakes
from skyspan.rehearsal.spec import Rehearsal, Trouble
from skyspan.rehearsal.trouble import COMMAND_S, Ordeal, unnoticed, unrepaired
from skyspan.rehearsal.world import World

SITES = {"cloud": {"prefix": "198.51.100.0/24"}, "lab": {"prefix": "203.0.113.0/24"}}
HOSTS = {"gw": {"site": "lab", "address": "203.0.113.10"}}
LOST = Trouble(name="lost", host="gw", run="docker kill r2", stage="lab", named="r2", keeps="look")
DEAD = "node r2 is exited"


def said(run: str, **stages: str) -> Mapping[str, Any]:
    """What a verb says: statuses by stage; a failed one's reason after a colon."""
    told = [(name, *one.partition(": ")) for name, one in stages.items()]
    return {
        "run": {"status": run},
        "stages": [{"name": name, "status": status, "reason": reason} for name, status, _, reason in told],
    }


def test_a_check_tells_of_it_by_the_name_it_was_given_and_of_the_right_stage() -> None:
    assert unnoticed(LOST, {"lab": DEAD, "load": "all lost"}) == ""
    assert "nobody noticed" in unnoticed(LOST, {})
    elsewhere = unnoticed(LOST, {"load": "r2 does not answer"})
    assert "nothing wrong with the stage lab, but of these:\nload: r2 does not answer" in elsewhere
    assert unnoticed(LOST, {"lab": "it is gone"}) == "`skyspan check` does not name 'r2':\nlab: it is gone"


def test_a_repair_applies_the_stage_and_may_apply_what_else_the_check_found_wrong() -> None:
    done = said("succeeded", lab="succeeded", load="succeeded", link="unchanged", spare="skipped")
    assert unrepaired(LOST, 0, done, {"lab": DEAD, "load": "all lost"}) == ""
    touched = unrepaired(LOST, 0, done, {"lab": DEAD})
    assert touched == "touched although the check found nothing wrong with it: load (succeeded)"


@pytest.mark.parametrize(
    ("exit_code", "document", "complaint"),
    [
        (1, said("failed", lab=f"failed: {DEAD}"), f"`skyspan up` ended with 1, failed\nlab: {DEAD}"),
        (0, said("degraded", lab="succeeded", link="failed: no"), "`skyspan up` ended with 0, degraded\nlink: no"),
        (0, said("succeeded", lab="unchanged"), "`skyspan up` left the stage lab unchanged"),
        (130, {}, "`skyspan up` ended with 130, without a word"),
    ],
)
def test_what_is_no_repair_is_told_with_its_reasons(
    exit_code: int, document: Mapping[str, Any], complaint: str
) -> None:
    assert unrepaired(LOST, exit_code, document, {"lab": DEAD}) == f"not repaired: {complaint}"


class Told:
    """A world and a command line whose words are known beforehand."""

    def __init__(
        self, *looks: tuple[int, str], checks: Sequence[str] = (f"failed: {DEAD}",), within: float = 20.0
    ) -> None:
        self.looks = list(looks)
        self.checks = list(checks)
        self.commands: list[str] = []
        self.ordeal = Ordeal(LOST.model_copy(update={"within": within}), cast(World, self), self.ask)

    async def on(self, machine: str, *argv: str, timeout_s: float) -> Completed:
        assert timeout_s == COMMAND_S
        self.commands.append(f"{machine}: {argv[-1]}")
        exit_code, text = self.looks.pop(0) if argv[-1] == LOST.keeps else (0, "")
        return Completed(exit_code, text.encode(), b"no such container" if exit_code else b"")

    async def ask(self, *verb: str) -> tuple[Completed, Mapping[str, Any]]:
        self.commands.append(" ".join(verb))
        lab = self.checks.pop(0) if verb[0] == "check" else "succeeded"
        return Completed(0, b"", b""), said("succeeded", lab=lab)


async def test_its_parts_come_in_order_and_tell_what_was_named_and_how_long_it_took() -> None:
    world = Told((0, "r1 10:00\n"), (0, "r1 10:00\n"))
    assert (await world.ordeal.happen()).fault == ""
    told = await world.ordeal.told()
    assert (told.fault, told.figures["named"], told.stages) == ("", DEAD, {"lab": "failed"})
    repaired = await world.ordeal.repaired()
    assert (repaired.fault, repaired.figures["changed"]) == ("", ["lab"])
    assert repaired.figures["repaired_s"] >= told.figures["told_s"] >= 0
    assert world.commands == ["gw: look", "gw: docker kill r2", "check", "up --yes", "gw: look"]


async def test_what_should_have_stayed_and_did_not_is_shown_as_it_was_and_is() -> None:
    world = Told((0, "r1 10:00"), (0, "r1 10:05"))
    await world.ordeal.happen()
    await world.ordeal.told()
    fault = (await world.ordeal.repaired()).fault
    assert fault == "`keeps` says something else than before the trouble\nbefore: r1 10:00\nafter: r1 10:05"


async def test_a_look_that_fails_stops_it_before_anything_goes_wrong() -> None:
    world = Told((1, ""))
    assert (await world.ordeal.happen()).fault == "`keeps` ended with 1 on gw\nno such container"
    assert world.commands == ["gw: look"]


async def test_a_check_that_does_not_tell_yet_is_asked_again_until_its_time_is_over() -> None:
    world = Told((0, ""), checks=("succeeded", f"failed: {DEAD}"))
    await world.ordeal.happen()
    assert (await world.ordeal.told()).fault == ""
    world = Told((0, ""), checks=("succeeded",), within=-1)
    await world.ordeal.happen()
    assert "nobody noticed" in (await world.ordeal.told()).fault


@pytest.mark.parametrize(
    ("trouble", "complaint"),
    [
        ({"fault": "reboot gw", "run": "true", "host": "gw"}, "either `fault`, or `run`"),
        ({}, "either `fault`, or `run`"),
        ({"run": "true"}, "need a `host`"),
        ({"fault": "reboot gw", "keeps": "true"}, "need a `host`"),
        ({"run": "true", "host": "moon"}, "trouble.0.host names no stand-in: moon; there are gw"),
    ],
)
def test_a_trouble_that_says_too_much_or_too_little_is_refused(trouble: Mapping[str, str], complaint: str) -> None:
    with pytest.raises(ValueError, match="trouble") as refused:
        section({"name": "one", "stage": "lab", "named": "x", **trouble})
    assert complaint in str(refused.value)


def test_two_troubles_of_one_name_are_refused() -> None:
    one = {"name": "one", "stage": "lab", "named": "x", "fault": "reboot gw"}
    with pytest.raises(ValueError, match="two of the name one"):
        section(one, one)


def test_words_that_mean_nothing_are_found_before_the_world_is_made() -> None:
    words = ("reboot gw", "reboot moon", "rebind lab", "nat lab", "rebind lab", "explode gw")
    world = section(*({"name": f"t{i}", "stage": "lab", "named": "x", "fault": one} for i, one in enumerate(words)))
    found = {number: error.summary for number, error in mistakes(world)}
    assert found == {1: "there is no stand-in moon", 2: "lab is not behind NAT", 5: "no such fault: explode gw"}
    assert meaning(["kill", "gw", "charon"], Faults(), world) == Kill("gw", "charon")


def section(*troubles: Mapping[str, Any]) -> Rehearsal:
    return Rehearsal.model_validate({"sites": SITES, "hosts": HOSTS, "trouble": list(troubles)})
