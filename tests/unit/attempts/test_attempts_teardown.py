"""`destroy`, `stop` and `start`, stage by stage."""

from __future__ import annotations

from typing import Any

from tests.support.attempt_rig import Rig

from skyspan.model.error import ToolFailedError
from skyspan.model.lifecycle import RunStatus, Verb
from skyspan.testing.fake_provider import FakeProviders, StoppableFakeProvider

CHAIN: dict[str, Any] = {
    "cloud": {"uses": "fake", "with": {"outputs": {"ip": "10.0.0.1"}}},
    "link": {"uses": "startable", "with": {"value": "${{ stages.cloud.outputs.ip }}"}},
    "lab": {"uses": "stoppable", "needs": ["link"]},
}


async def test_destroying_goes_backwards_from_what_was_recorded(rig: Rig) -> None:
    await rig.up(CHAIN)
    rig.world.calls.clear()
    ran = await rig.run(Verb.DESTROY)
    assert [stage for verb, stage in rig.world.calls if verb == "destroy"] == ["lab", "link", "cloud"]
    assert set(ran.statuses().values()) == {"destroyed"}
    assert rig.world.things == {}
    assert await rig.records() == {}


async def test_destroying_again_finds_nothing_and_succeeds(rig: Rig) -> None:
    await rig.up(CHAIN)
    await rig.run(Verb.DESTROY)
    assert (await rig.run(Verb.DESTROY)).ended.status is RunStatus.SUCCEEDED


async def test_what_cannot_be_destroyed_keeps_what_it_stands_on_and_the_next_destroy_goes_on(rig: Rig) -> None:
    await rig.up(CHAIN)
    rig.world.faults["destroy", "link"] = [ToolFailedError("busy")]
    ran = await rig.run(Verb.DESTROY)
    assert ran.statuses() == {"lab": "destroyed", "link": "failed", "cloud": "skipped"}
    assert set(await rig.records()) == {"cloud", "link"}
    ran = await rig.run(Verb.DESTROY)
    assert ran.statuses() == {"link": "destroyed", "cloud": "destroyed"}


async def test_a_failed_apply_can_be_destroyed(rig: Rig) -> None:
    rig.world.after["apply", "a"] = [ToolFailedError("died at the end")]
    await rig.up({"a": {}})
    assert "a" in rig.world.things
    await rig.run(Verb.DESTROY)
    assert rig.world.things == {}


async def test_what_is_protected_is_not_destroyed(rig: Rig) -> None:
    await rig.up({"a": {"prevent_destroy": True}, "b": {}})
    ran = await rig.run(Verb.DESTROY)
    assert ran.statuses() == {"a": "failed", "b": "destroyed"}
    assert "prevent_destroy" in ran.error("a")["summary"]
    assert set(rig.world.things) == {"a"}


async def test_stopping_suspends_what_can_be_and_says_why_the_rest_keeps_running(rig: Rig) -> None:
    stages = {**CHAIN, "kept": {"uses": "stoppable", "on_stop": "keep"}}
    await rig.up(stages)
    ran = await rig.run(Verb.STOP)
    assert ran.statuses() == {"cloud": "unchanged", "link": "stopped", "lab": "stopped", "kept": "unchanged"}
    assert ran.stages["cloud"].reason == "keeps running: fake cannot be stopped"
    assert ran.stages["kept"].reason == "keeps running: its on_stop is keep"
    assert [stage for verb, stage in rig.world.calls if verb == "stop"] == ["lab", "link"]
    assert (await rig.records())["lab"].stopped


async def test_starting_brings_back_what_was_stopped(rig: Rig) -> None:
    await rig.up(CHAIN)
    await rig.run(Verb.STOP)
    rig.world.calls.clear()
    ran = await rig.run(Verb.START, CHAIN)
    assert ran.statuses() == {"cloud": "unchanged", "link": "succeeded", "lab": "succeeded"}
    assert rig.world.verbs("link") == ["observe", "start"]
    assert rig.world.verbs("lab") == ["observe", "plan", "apply"]
    assert not any(record.stopped for record in (await rig.records()).values())
    assert set((await rig.up(CHAIN)).statuses().values()) == {"unchanged"}


async def test_up_after_stop_brings_everything_back_too(rig: Rig) -> None:
    await rig.up(CHAIN)
    await rig.run(Verb.STOP)
    ran = await rig.up(CHAIN)
    assert ran.statuses() == {"cloud": "unchanged", "link": "succeeded", "lab": "succeeded"}
    assert not rig.world.things["link"].stopped


async def test_a_stop_cut_short_is_not_taken_for_running(rig: Rig) -> None:
    await rig.up(CHAIN)
    rig.world.after["stop", "link"] = [ToolFailedError("cut off")]
    ran = await rig.run(Verb.STOP)
    assert ran.statuses()["link"] == "failed"
    assert (await rig.records())["link"].stopped
    assert (await rig.run(Verb.STOP)).statuses()["link"] == "stopped"


async def test_starting_what_was_never_applied_leaves_it_out(rig: Rig) -> None:
    await rig.up({"a": {}})
    ran = await rig.run(Verb.START, {"a": {}, "b": {}})
    assert ran.statuses() == {"a": "unchanged", "b": "skipped"}


async def test_a_check_of_what_is_stopped_says_so(rig: Rig) -> None:
    await rig.up(CHAIN)
    await rig.run(Verb.STOP)
    ran = await rig.run(Verb.CHECK, CHAIN)
    assert ran.statuses() == {"cloud": "succeeded", "link": "stopped", "lab": "stopped"}
    assert ran.ended.status is RunStatus.SUCCEEDED


async def test_a_stopped_deployment_can_be_destroyed(rig: Rig) -> None:
    await rig.up(CHAIN)
    await rig.run(Verb.STOP)
    await rig.run(Verb.DESTROY)
    assert rig.world.things == {}


async def test_a_stage_whose_provider_has_a_reason_to_keep_it_keeps_running_and_says_so(rig: Rig) -> None:
    class Keeping(StoppableFakeProvider):
        def kept_because(self, spec: Any) -> str:
            return "it has no way to stop"

    rig.providers = lambda: FakeProviders(Keeping(rig.world, "stoppable"))  # type: ignore[method-assign]
    await rig.up({"a": {"uses": "stoppable"}})
    ran = await rig.run(Verb.STOP)
    assert ran.statuses() == {"a": "unchanged"}
    assert ran.stages["a"].reason == "keeps running: it has no way to stop"
    assert not (await rig.records())["a"].stopped
