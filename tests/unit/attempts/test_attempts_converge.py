"""`up`, stage by stage."""

from __future__ import annotations

from typing import Any

from tests.support.attempt_rig import Rig

from skyspan.model.change import Action, Change
from skyspan.model.error import ToolFailedError, UnreachableError
from skyspan.model.lifecycle import RunStatus, Verb
from skyspan.model.secret import Secret
from skyspan.model.value import OutputValue

CHAIN: dict[str, Any] = {
    "cloud": {"with": {"value": 1, "outputs": {"ip": "10.0.0.1"}}},
    "link": {"with": {"value": "${{ stages.cloud.outputs.ip }}"}},
}


async def test_what_is_absent_is_created_with_the_values_of_the_stages_before(rig: Rig) -> None:
    ran = await rig.up(CHAIN)
    assert ran.statuses() == {"cloud": "succeeded", "link": "succeeded"}
    assert ran.changes() == {"cloud": "create", "link": "create"}
    assert rig.world.things["link"].value == "10.0.0.1"


async def test_the_record_holds_all_that_destroy_needs(rig: Rig) -> None:
    await rig.up(CHAIN)
    record = (await rig.records())["link"]
    assert (record.uses, record.spec, record.needs, record.order) == ("fake", {"value": "10.0.0.1"}, ("cloud",), 1)
    assert record.present
    assert record.fingerprint
    assert record.outputs["value"] == OutputValue("10.0.0.1")
    assert record.folder == str(rig.folder)


async def test_a_second_run_finds_nothing_to_do_and_only_looks(rig: Rig) -> None:
    await rig.up(CHAIN)
    rig.world.calls.clear()
    ran = await rig.up(CHAIN)
    assert set(ran.statuses().values()) == {"unchanged"}
    assert rig.world.calls == [("observe", "cloud"), ("observe", "link")]
    assert ran.stages["cloud"].outputs == ("ip", "value", "serial")


async def test_an_intent_and_a_record_come_before_the_effect(rig: Rig) -> None:
    rig.world.faults["apply", "cloud"] = [ToolFailedError("out of quota")]
    ran = await rig.up(CHAIN)
    assert ran.kinds("cloud") == ["stage_started", "stage_planned", "effect_intended", "attempt_failed", "stage_ended"]
    record = (await rig.records())["cloud"]
    assert not record.present
    assert record.fingerprint == ""
    assert ran.statuses() == {"cloud": "failed", "link": "skipped"}


async def test_a_change_of_an_output_reaches_its_readers_in_the_same_run(rig: Rig) -> None:
    await rig.up(CHAIN)
    stages = {**CHAIN, "cloud": {"with": {"value": 1, "outputs": {"ip": "10.0.0.2"}}}}
    ran = await rig.up(stages)
    assert ran.changes() == {"cloud": "update", "link": "update"}
    assert rig.world.things["link"].value == "10.0.0.2"


async def test_drift_is_put_right(rig: Rig) -> None:
    await rig.up(CHAIN)
    rig.world.change("cloud", value=99, drifted=True)
    ran = await rig.up(CHAIN)
    assert ran.statuses() == {"cloud": "succeeded", "link": "unchanged"}
    assert rig.world.things["cloud"].value == 1


async def test_what_was_deleted_behind_our_back_is_made_again(rig: Rig) -> None:
    await rig.up(CHAIN)
    del rig.world.things["link"]
    assert (await rig.up(CHAIN)).changes() == {"cloud": "none", "link": "create"}


async def test_what_is_there_already_is_put_on_record_and_left_alone(rig: Rig) -> None:
    await rig.up(CHAIN)
    await rig.store.forget_deployment(rig.store.appended[0].put[0].address.deployment)
    rig.world.calls.clear()
    ran = await rig.up(CHAIN)
    assert set(ran.statuses().values()) == {"unchanged"}
    assert not any(verb == "apply" for verb, _ in rig.world.calls)
    assert (await rig.records())["cloud"].present


async def test_a_failed_apply_is_done_again_by_the_next_run(rig: Rig) -> None:
    rig.world.after["apply", "cloud"] = [ToolFailedError("lost the connection at the end")]
    await rig.up(CHAIN)
    ran = await rig.up(CHAIN)
    assert ran.statuses() == {"cloud": "unchanged", "link": "succeeded"}


async def test_a_retry_observes_first_and_does_nothing_twice(rig: Rig) -> None:
    rig.world.after["apply", "a"] = [UnreachableError("no answer any more")]
    ran = await rig.up({"a": {"with": {"value": 1}, "retry": {"attempts": 2}}})
    assert ran.ended.status is RunStatus.SUCCEEDED
    assert rig.world.verbs("a") == ["observe", "plan", "apply", "observe", "plan"]


async def test_an_output_that_changed_by_itself_reaches_its_readers_and_the_record(rig: Rig) -> None:
    await rig.up(CHAIN)
    rig.world.change("cloud", serial=7)
    readers = {**CHAIN, "link": {"with": {"value": "${{ stages.cloud.outputs.serial }}"}}}
    ran = await rig.up(readers)
    assert ran.changes() == {"cloud": "none", "link": "update"}
    assert (await rig.records())["cloud"].outputs["serial"] == OutputValue(7)


async def test_changed_source_files_count_as_a_change(rig: Rig) -> None:
    class Sourced:
        def sources(self, spec: Any) -> tuple[str, ...]:
            return ("./cloud",)

    original = rig.providers().get("fake")
    sourced = type("SourcedProvider", (Sourced, type(original)), {})(rig.world)
    rig.providers = lambda: type(Rig.providers(rig))(sourced)  # type: ignore[method-assign]
    await rig.up({"a": {}})
    rig.world.calls.clear()
    assert (await rig.up({"a": {}})).statuses() == {"a": "unchanged"}
    assert rig.world.verbs("a") == ["observe"]
    rig.source_digest = "edited"
    await rig.up({"a": {}})
    assert rig.world.verbs("a") == ["observe", "observe", "plan"]


async def test_a_stage_whose_condition_is_false_is_left_out_and_does_not_hold_up_others(rig: Rig) -> None:
    stages = {
        "extra": {"if": False},
        "reader": {"with": {"value": "${{ stages.extra.outputs.value }}"}},
        "brave": {"with": {"value": "${{ default(stages.extra.outputs.value, 'none') }}"}},
        "after": {"needs": ["extra"]},
    }
    ran = await rig.up(stages)
    assert ran.statuses() == {"extra": "skipped", "reader": "skipped", "brave": "succeeded", "after": "succeeded"}
    assert ran.stages["extra"].reason == "its `if` is false"
    assert "extra" in ran.stages["reader"].reason
    assert rig.world.things["brave"].value == "none"
    assert ran.ended.status is RunStatus.SUCCEEDED


async def test_readers_of_a_best_effort_failure_skip_or_use_their_default(rig: Rig) -> None:
    rig.world.faults["apply", "soft"] = [ToolFailedError("no")]
    stages = {
        "soft": {"best_effort": True},
        "reader": {"with": {"value": "${{ stages.soft.outputs.value }}"}},
        "beyond": {"needs": ["reader"]},
        "brave": {"with": {"value": "${{ default(stages.soft.outputs.value, 'none') }}"}},
    }
    ran = await rig.up(stages)
    assert ran.statuses() == {"soft": "failed", "reader": "skipped", "beyond": "skipped", "brave": "succeeded"}
    assert ran.stages["beyond"].reason == "soft failed"
    assert ran.ended.status is RunStatus.DEGRADED


async def test_a_best_effort_stage_that_timed_out_counts_as_without_outputs(rig: Rig) -> None:
    rig.world.unhealthy_for["soft"] = 10_000
    stages = {
        "soft": {"best_effort": True, "timeout": "30s"},
        "brave": {"with": {"value": "${{ default(stages.soft.outputs.value, 'none') }}"}},
    }
    ran = await rig.up(stages)
    assert ran.statuses() == {"soft": "failed", "brave": "succeeded"}
    assert rig.world.things["brave"].value == "none"


async def test_applying_waits_until_it_is_healthy(rig: Rig) -> None:
    rig.world.unhealthy_for["a"] = 5
    ran = await rig.up({"a": {}})
    assert ran.ended.status is RunStatus.SUCCEEDED
    assert rig.world.verbs("a").count("observe") >= 5


async def test_what_does_not_become_healthy_fails_and_stays_on_record(rig: Rig) -> None:
    rig.world.unhealthy_for["a"] = 10_000
    before = rig.clock.monotonic()
    ran = await rig.up({"a": {"retry": {"attempts": 1}}})
    assert ran.error("a")["kind"] == "NotReadyError"
    assert ran.error("a")["detail"] == "it warms up"
    assert 50 < rig.clock.monotonic() - before < 70
    record = (await rig.records())["a"]
    assert record.present
    assert record.fingerprint == ""


async def test_a_stages_own_timeout_limits_how_long_to_wait_for_health(rig: Rig) -> None:
    rig.world.unhealthy_for["a"] = 10_000
    ran = await rig.up({"a": {"timeout": "200s", "retry": {"attempts": 1}}})
    assert ran.error("a")["kind"] == "NotReadyError"
    assert rig.clock.monotonic() > 150


async def test_outputs_that_break_the_contract_fail_the_stage_and_what_was_made_stays_on_record(rig: Rig) -> None:
    ran = await rig.up({"a": {"with": {"outputs": {"ip": "nonsense"}}, "outputs": {"ip": {"type": "ip"}}}})
    assert ran.error("a")["kind"] == "OutputError"
    assert (await rig.records())["a"].present
    await rig.run(Verb.DESTROY)
    assert rig.world.things == {}


async def test_settings_that_cannot_work_name_the_field_and_no_secret(rig: Rig) -> None:
    rig.secrets["token"] = Secret("hunter2-hunter2")
    ran = await rig.up({"a": {"with": {"hosts": "${{ stages.b.outputs.value }}"}}, "b": {"with": {"value": 3}}})
    assert ran.error("a")["kind"] == "SpecError"
    assert "hosts" in ran.error("a")["detail"]
    ran = await rig.up({"a": {"with": {"host": "${{ secrets.token }}"}}})
    assert ran.error("a")["kind"] == "SpecError"
    assert "hunter2" not in str(ran.events)


async def test_secrets_reach_the_provider_and_are_masked_from_then_on(rig: Rig) -> None:
    rig.secrets["token"] = Secret("hunter2-hunter2")
    outputs = {"password": {"type": "string", "sensitive": True}}
    stages = {
        "a": {"with": {"token": "${{ secrets.token }}", "outputs": {"password": "s3cret-s3cret"}}, "outputs": outputs},
        "b": {"with": {"token": "${{ stages.a.outputs.password }}"}},
    }
    ran = await rig.up(stages)
    assert ran.ended.status is RunStatus.SUCCEEDED
    assert {Secret("hunter2-hunter2"), Secret("s3cret-s3cret")} <= set(rig.report.concealed)
    records = await rig.records()
    assert records["a"].outputs["password"] == OutputValue("s3cret-s3cret", sensitive=True)
    assert records["b"].spec == {"token": Secret("s3cret-s3cret")}
    assert "s3cret-s3cret" not in str(ran.events)


async def test_what_is_protected_is_not_replaced(rig: Rig) -> None:
    await rig.up({"a": {"with": {"kept": 1}, "prevent_destroy": True}})
    ran = await rig.up({"a": {"with": {"kept": 2}, "prevent_destroy": True}})
    assert ran.error("a")["kind"] == "SpecError"
    assert "prevent_destroy" in ran.error("a")["summary"]
    assert rig.world.things["a"].kept == 1
    assert (await rig.up({"a": {"with": {"kept": 2}}})).changes() == {"a": "replace"}


async def test_only_the_approved_changes_are_applied(rig: Rig) -> None:
    planned = await rig.plan(CHAIN)
    approved = {"cloud": planned.change("cloud"), "link": planned.change("link")}
    assert approved["link"].action is Action.DEFERRED
    edited = {**CHAIN, "cloud": {"with": {"value": 2, "outputs": {"ip": "10.0.0.1"}}}}
    ran = await rig.up(edited, approved=approved)
    assert ran.statuses() == {"cloud": "failed", "link": "skipped"}
    assert "saved plan" in ran.error("cloud")["summary"]
    assert rig.world.things == {}
    assert (await rig.up(CHAIN, approved=approved)).ended.status is RunStatus.SUCCEEDED


async def test_a_stage_that_the_approved_plan_does_not_know_is_not_changed(rig: Rig) -> None:
    ran = await rig.up({"a": {}}, approved={"other": Change(Action.NONE)})
    assert ran.statuses() == {"a": "failed"}
    assert rig.world.things == {}


async def test_a_stage_that_left_the_composition_is_destroyed(rig: Rig) -> None:
    await rig.up(CHAIN)
    ran = await rig.up({"cloud": CHAIN["cloud"]})
    assert ran.statuses() == {"cloud": "unchanged", "link": "destroyed"}
    assert set(rig.world.things) == set(await rig.records()) == {"cloud"}


async def test_hosts_are_resolved_and_handed_to_the_provider(rig: Rig) -> None:
    rig.secrets["ssh_key"] = Secret("PRIVATE")
    hosts = {
        "gw": {"address": "${{ stages.cloud.outputs.ip }}", "key": "${{ secrets.ssh_key }}", "user": "ubuntu"},
        "inner": {"address": "192.0.2.7", "jump": "gw"},
    }
    stages = {"cloud": CHAIN["cloud"], "lab": {"with": {"host": "inner"}}}
    ran = await rig.up(stages, rest={"hosts": hosts})
    assert ran.ended.status is RunStatus.SUCCEEDED
    reached = next(request.hosts for request in rig.requests if request.address.name == "lab")
    assert (reached["gw"].address, reached["gw"].key, reached["inner"].jump) == ("10.0.0.1", Secret("PRIVATE"), "gw")
    assert (await rig.records())["lab"].hosts["gw"]["user"] == "ubuntu"
    assert Secret("PRIVATE") in rig.report.concealed


async def test_a_provider_that_breaks_is_told_as_a_bug(rig: Rig) -> None:
    rig.world.faults["plan", "a"] = [KeyError("oops")]
    ran = await rig.up({"a": {}, "b": {}})
    assert ran.error("a")["kind"] == "InternalError"
    assert "KeyError" in ran.error("a")["detail"]
    assert ran.statuses()["b"] == "succeeded"


async def test_a_host_that_a_stage_leaves_can_be_reached_until_the_apply_has_ended(rig: Rig) -> None:
    hosts = {"hosts": {name: {"address": f"192.0.2.{name[-1]}"} for name in ("h1", "h2")}}
    await rig.up({"mesh": {"with": {"hosts": ["h1", "h2"]}}}, rest=hosts)
    rig.world.faults["apply", "mesh"] = [ToolFailedError("half done")]
    alone = {"mesh": {"with": {"hosts": ["h1"], "value": 2}}}
    await rig.up(alone, rest=hosts)
    assert sorted((await rig.records())["mesh"].hosts) == ["h1", "h2"]
    rig.requests.clear()
    ran = await rig.up(alone, rest=hosts)
    assert ran.statuses() == {"mesh": "succeeded"}
    assert sorted(rig.requests[0].hosts) == ["h1", "h2"]
    assert sorted((await rig.records())["mesh"].hosts) == ["h1"]
