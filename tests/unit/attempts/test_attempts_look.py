"""`plan` and `check`, stage by stage: what they say, and that they touch nothing."""

from __future__ import annotations

from typing import Any

from tests.support.attempt_rig import Rig

from skyspan.model.change import Action
from skyspan.model.error import ToolFailedError, UnreachableError
from skyspan.model.lifecycle import RunStatus, Verb

CLOUD: dict[str, Any] = {"with": {"value": 1, "outputs": {"ip": "10.0.0.1"}}}
LINK: dict[str, Any] = {"with": {"value": "${{ stages.cloud.outputs.ip }}"}}
LOOKING = {"observe", "plan"}


async def test_a_plan_of_nothing_applied_yet_defers_what_nobody_can_know(rig: Rig) -> None:
    ran = await rig.plan({"cloud": CLOUD, "link": LINK, "lab": {"needs": ["cloud"]}})
    assert ran.changes() == {"cloud": "create", "link": "deferred", "lab": "create"}
    assert ran.change("link").unknown == ("stages.cloud.outputs.ip",)
    assert ran.change("link").reason == "waits for stages.cloud.outputs.ip"
    assert ran.ended.status is RunStatus.SUCCEEDED
    assert rig.world.things == {}
    assert {verb for verb, _ in rig.world.calls} == LOOKING
    assert await rig.records() == {}


async def test_a_plan_after_an_apply_shows_no_change(rig: Rig) -> None:
    await rig.up({"cloud": CLOUD, "link": LINK})
    ran = await rig.plan({"cloud": CLOUD, "link": LINK})
    assert ran.changes() == {"cloud": "none", "link": "none"}
    assert set(ran.statuses().values()) == {"unchanged"}


async def test_an_output_that_is_certain_although_its_stage_changes_is_used(rig: Rig) -> None:
    serial = {"with": {"value": "${{ stages.cloud.outputs.serial }}"}}
    await rig.up({"cloud": CLOUD, "link": LINK, "other": serial})
    edited = {"with": {**CLOUD["with"], "value": 2}}
    ran = await rig.plan({"cloud": edited, "link": LINK, "other": serial})
    assert ran.changes() == {"cloud": "update", "link": "deferred", "other": "none"}


async def test_a_host_whose_address_is_unknown_defers_the_stage(rig: Rig) -> None:
    hosts = {"gw": {"address": "${{ stages.cloud.outputs.ip }}"}}
    ran = await rig.plan({"cloud": CLOUD, "lab": {"with": {"host": "gw"}}}, rest={"hosts": hosts})
    assert ran.change("lab").action is Action.DEFERRED
    assert ran.change("lab").unknown == ("stages.cloud.outputs.ip",)


async def test_every_unknown_is_named(rig: Rig) -> None:
    hosts = {"gw": {"address": "${{ stages.b.outputs.value }}"}}
    stages = {
        "a": {},
        "b": {},
        "c": {"with": {"host": "gw", "value": ["${{ stages.a.outputs.x }}", "${{ stages.a.outputs.y }}"]}},
    }
    ran = await rig.plan(stages, rest={"hosts": hosts})
    assert ran.change("c").unknown == ("stages.a.outputs.x", "stages.a.outputs.y", "stages.b.outputs.value")


async def test_a_condition_that_nobody_can_know_yet_defers_the_stage(rig: Rig) -> None:
    ran = await rig.plan({"cloud": CLOUD, "x": {"if": "${{ stages.cloud.outputs.ip == '' }}"}})
    assert ran.change("x").unknown == ("stages.cloud.outputs.ip",)


async def test_what_reads_a_deferred_stage_is_deferred_too(rig: Rig) -> None:
    stages = {"cloud": CLOUD, "link": LINK, "far": {"with": {"value": "${{ stages.link.outputs.value }}"}}}
    assert (await rig.plan(stages)).change("far").unknown == ("stages.link.outputs.value",)


async def test_a_host_that_does_not_answer_yet_defers_what_comes_after_a_change(rig: Rig) -> None:
    rig.world.faults["observe", "lab"] = [UnreachableError("lab-gw does not answer")]
    ran = await rig.plan({"cloud": CLOUD, "lab": {"needs": ["cloud"]}})
    assert ran.change("lab").reason == "waits for cloud: lab-gw does not answer"
    assert ran.change("lab").action is Action.DEFERRED


async def test_a_host_that_does_not_answer_fails_the_plan_when_nothing_before_it_changes(rig: Rig) -> None:
    stages: dict[str, Any] = {"cloud": CLOUD, "lab": {"needs": ["cloud"], "retry": {"attempts": 1}}}
    await rig.up(stages)
    rig.world.faults["observe", "lab"] = [UnreachableError("lab-gw does not answer")]
    ran = await rig.plan(stages)
    assert ran.statuses() == {"cloud": "unchanged", "lab": "failed"}


async def test_a_stage_that_cannot_be_planned_skips_its_readers_only(rig: Rig) -> None:
    rig.world.faults["plan", "cloud"] = [ToolFailedError("syntax error")]
    ran = await rig.plan({"cloud": CLOUD, "link": LINK, "other": {}})
    assert ran.statuses() == {"cloud": "failed", "link": "skipped", "other": "succeeded"}
    assert ran.ended.status is RunStatus.FAILED


async def test_a_stage_that_left_the_composition_is_planned_for_destruction(rig: Rig) -> None:
    await rig.up({"cloud": CLOUD, "link": LINK})
    ran = await rig.plan({"cloud": CLOUD})
    assert ran.change("link").action is Action.DESTROY
    assert "link" in rig.world.things


async def test_a_plan_shows_what_protection_forbids_and_fails(rig: Rig) -> None:
    await rig.up({"a": {"with": {"kept": 1}, "prevent_destroy": True}})
    ran = await rig.plan({"a": {"with": {"kept": 2}, "prevent_destroy": True}})
    assert ran.change("a").action is Action.REPLACE
    assert "prevent_destroy" in ran.error("a")["summary"]


async def test_an_example_never_takes_the_place_of_a_value(rig: Rig) -> None:
    cloud = {**CLOUD, "outputs": {"ip": {"type": "ip", "example": "198.51.100.1"}}}
    ran = await rig.plan({"cloud": cloud, "link": LINK})
    assert ran.change("link").action is Action.DEFERRED
    assert "198.51.100.1" not in str(ran.events)


async def test_a_check_finds_everything_well(rig: Rig) -> None:
    await rig.up({"cloud": CLOUD, "link": LINK})
    rig.world.calls.clear()
    ran = await rig.run(Verb.CHECK, {"cloud": CLOUD, "link": LINK})
    assert set(ran.statuses().values()) == {"succeeded"}
    assert {verb for verb, _ in rig.world.calls} == {"observe"}


async def test_a_check_tells_what_drifted_what_is_gone_and_what_is_ill(rig: Rig) -> None:
    stages: dict[str, Any] = {"fine": {}, "drifted": {"needs": ["gone"]}, "gone": {}, "ill": {}}
    await rig.up(stages)
    rig.world.change("drifted", drifted=True)
    rig.world.change("ill", healthy=False)
    del rig.world.things["gone"]
    ran = await rig.run(Verb.CHECK, stages)
    assert ran.statuses() == {"fine": "succeeded", "drifted": "failed", "gone": "failed", "ill": "failed"}
    assert ran.stages["gone"].reason == "it is gone"
    assert ran.change("drifted").resources[0].address == "thing.drifted"
    assert ran.stages["ill"].reason == "it warms up"
    assert ran.ended.status is RunStatus.FAILED


async def test_a_check_looks_by_what_was_recorded_not_by_the_file(rig: Rig) -> None:
    await rig.up({"a": {"with": {"value": 1}}})
    ran = await rig.run(Verb.CHECK, {"a": {"with": {"value": 2}}, "new": {}})
    assert ran.statuses() == {"a": "succeeded", "new": "skipped"}


async def test_a_check_tells_of_an_apply_that_did_not_end(rig: Rig) -> None:
    rig.world.faults["apply", "a"] = [ToolFailedError("no")]
    await rig.up({"a": {}})
    ran = await rig.run(Verb.CHECK, {"a": {}})
    assert ran.stages["a"].reason == "its last apply did not end"
