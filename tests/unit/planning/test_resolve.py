"""What settings, conditions and hosts come to at some moment of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from skyspan.model.composition import Composition
from skyspan.model.error import SpecError
from skyspan.model.secret import Secret
from skyspan.model.value import OutputValue, Unknown
from skyspan.planning.resolve import (
    Absent,
    Situation,
    hosts_used,
    resolve_condition,
    resolve_hosts,
    resolve_settings,
    stage_hosts,
)


def composition(stage: dict[str, Any], **rest: Any) -> Composition:
    stages = {"cloud": {"uses": "command"}, "notify": {"uses": "command"}, "x": {"uses": "command", **stage}}
    return Composition.model_validate({"skyspan": 1, "name": "n", "stages": stages, **rest})


def situation(settings: dict[str, Any], known: dict[str, Any] | None = None, **rest: Any) -> Situation:
    return Situation(composition({"with": settings}, **rest), **(known or {}))


CLOUD_DONE: dict[str, Any] = {
    "outputs": {
        "cloud": {
            "ip": OutputValue("192.0.2.1"),
            "token": OutputValue("t0p", sensitive=True),
            "nested": OutputValue({"ports": [22, 80]}),
            "dear": OutputValue({"pin": 7}, sensitive=True),
        }
    }
}


def test_settings_are_resolved_from_inputs_outputs_secrets_and_hosts() -> None:
    raw = {
        "a": "${{ inputs.region }}",
        "b": ["${{ stages.cloud.outputs.nested.ports[1] }}", "http://${{ stages.cloud.outputs.ip }}/"],
        "c": "${{ secrets.key }}",
        "d": "${{ hosts.gw.address }}:${{ hosts.gw.port }} ${{ hosts.gw.vars.zone }} ${{ hosts.gw.name }}",
        "e": 5,
    }
    hosts = {"gw": {"address": "${{ stages.cloud.outputs.ip }}", "vars": {"zone": "${{ inputs.region }}-1"}}}
    known = CLOUD_DONE | {"inputs": {"region": "eu"}, "secrets": {"key": Secret("k")}}
    assert resolve_settings("x", situation(raw, known, hosts=hosts)) == {
        "a": "eu",
        "b": [80, "http://192.0.2.1/"],
        "c": Secret("k"),
        "d": "192.0.2.1:22 eu-1 gw",
        "e": 5,
    }


def test_sensitive_outputs_reach_settings_as_secrets() -> None:
    raw = {"a": "${{ stages.cloud.outputs.token }}", "b": "pin ${{ stages.cloud.outputs.dear.pin }}"}
    assert resolve_settings("x", situation(raw, CLOUD_DONE)) == {"a": Secret("t0p"), "b": Secret("pin 7")}


def test_all_outputs_of_a_stage_can_be_read_at_once() -> None:
    resolved = resolve_settings("x", situation({"all": "${{ stages.cloud.outputs }}"}, CLOUD_DONE))
    assert isinstance(resolved, dict)
    assert resolved["all"]["dear"] == {"pin": Secret("7")}
    assert resolved["all"]["ip"] == "192.0.2.1"


def test_what_no_stage_has_given_yet_is_unknown_and_every_reference_is_named() -> None:
    raw = {"a": "${{ stages.cloud.outputs.ip }}", "b": ["${{ stages.notify.outputs.x.y }}"], "c": "known"}
    assert resolve_settings("x", situation(raw)) == Unknown(
        frozenset({"stages.cloud.outputs.ip", "stages.notify.outputs.x.y"})
    )


def test_a_planned_stage_gives_what_is_certain_and_the_rest_is_unknown() -> None:
    known = CLOUD_DONE | {"pending": frozenset({"cloud"})}
    assert resolve_settings("x", situation({"a": "${{ stages.cloud.outputs.ip }}"}, known)) == {"a": "192.0.2.1"}
    later = resolve_settings("x", situation({"a": "${{ stages.cloud.outputs.id }}"}, known))
    assert later == Unknown(frozenset({"stages.cloud.outputs.id"}))
    assert isinstance(resolve_settings("x", situation({"a": "${{ stages.cloud.outputs }}"}, known)), Unknown)


def test_a_missing_output_of_an_ended_stage_is_an_error_with_its_place() -> None:
    with pytest.raises(SpecError, match=r"stages\.x\.with\.a\[0\]: stage cloud has no output 'id'"):
        resolve_settings("x", situation({"a": ["${{ stages.cloud.outputs.id }}"]}, CLOUD_DONE))


def test_a_stage_that_ended_without_outputs_makes_its_readers_absent_unless_they_have_a_default() -> None:
    known = {"absent": {"notify": "its condition is false"}}
    assert resolve_settings("x", situation({"a": "${{ stages.notify.outputs.id }}"}, known)) == Absent(
        "notify", "its condition is false"
    )
    with_default = {"a": "${{ default(stages.notify.outputs.id, 'none') }}"}
    assert resolve_settings("x", situation(with_default, known)) == {"a": "none"}


def test_every_problem_is_listed_with_its_place_and_what_to_do() -> None:
    raw = {"a": "${{ secrets.ssh_key }}", "b": {"c": "${{ join('x', 'y') }}"}, "d": "${{ inputs.gone }}"}
    with pytest.raises(SpecError) as failed:
        resolve_settings("x", situation(raw))
    said = str(failed.value)
    assert "stages.x.with.a: secret ssh_key is not set: set it with `skyspan secrets set ssh_key`" in said
    assert "stages.x.with.b.c: join() expects a list first" in said
    assert "stages.x.with.d: input gone has no value" in said


def test_a_connection_lies_under_the_settings_of_its_stage() -> None:
    connections = {"slow": {"timeout": "${{ inputs.wait }}", "retries": 3}}
    raw = {"connection": "slow", "retries": 5}
    resolved = resolve_settings("x", situation(raw, {"inputs": {"wait": 9}}, connections=connections))
    assert resolved == {"timeout": 9, "retries": 5}


@pytest.mark.parametrize(
    ("condition", "known", "answer"),
    [
        (True, {}, True),
        (False, {}, False),
        ("${{ inputs.full }}", {"inputs": {"full": False}}, False),
        ("${{ stages.cloud.outputs.ip == '192.0.2.1' }}", CLOUD_DONE, True),
        ("${{ stages.cloud.outputs.ip == 'x' }}", {}, Unknown(frozenset({"stages.cloud.outputs.ip"}))),
        ("${{ stages.cloud.outputs.ip == 'x' }}", {"absent": {"cloud": "failed"}}, Absent("cloud", "failed")),
        ("${{ default(stages.cloud.outputs.up, true) }}", {"absent": {"cloud": "failed"}}, True),
    ],
)
def test_a_condition_is_true_false_unknown_or_absent(condition: Any, known: dict[str, Any], answer: Any) -> None:
    assert resolve_condition("x", Situation(composition({"if": condition}), **known)) == answer


def test_a_condition_of_another_type_is_refused() -> None:
    with pytest.raises(SpecError, match="neither true nor false"):
        resolve_condition("x", Situation(composition({"if": "${{ inputs.n }}"}), inputs={"n": 1}))


HOSTS = {
    "gw": {
        "address": "${{ stages.cloud.outputs.ip }}",
        "key": "${{ secrets.key }}",
        "key_file": "keys/id",
        "roles": ["r"],
    },
    "inner": {"address": "10.0.0.2", "jump": "gw", "port": "${{ inputs.port }}", "known_hosts": "~/.ssh/known"},
    "far": {"address": "10.0.0.3", "jump": "inner"},
    "idle": {"address": "10.0.0.4"},
}


def hosts_known(**more: Any) -> Situation:
    known = CLOUD_DONE | {"inputs": {"port": 2222}, "secrets": {"key": Secret("PEM")}, **more}
    return Situation(composition({}, hosts=HOSTS), folder=Path("/comp"), home=Path("/home/me"), **known)


def test_hosts_are_resolved_with_those_they_are_reached_through() -> None:
    resolved = resolve_hosts(["inner"], hosts_known())
    assert isinstance(resolved, dict)
    assert set(resolved) == {"gw", "inner"}
    assert resolved["gw"].address == "192.0.2.1"
    assert resolved["gw"].key == Secret("PEM")
    assert resolved["gw"].key_file == "/comp/keys/id"
    assert resolved["gw"].roles == ("r",)
    assert (resolved["inner"].port, resolved["inner"].jump, resolved["inner"].user) == (2222, "gw", "root")
    assert resolved["inner"].known_hosts == "/home/me/.ssh/known"


def test_a_host_whose_address_nobody_knows_yet_is_unknown() -> None:
    assert resolve_hosts(["far"], hosts_known(outputs={})) == Unknown(frozenset({"stages.cloud.outputs.ip"}))
    assert resolve_hosts(["gw"], hosts_known(outputs={}, absent={"cloud": "failed"})) == Absent("cloud", "failed")


def test_an_unknown_host_a_bad_port_and_a_sensitive_address_are_refused() -> None:
    with pytest.raises(SpecError, match="there is no host 'nobody'"):
        resolve_hosts(["nobody"], hosts_known())
    with pytest.raises(SpecError, match=r"hosts\.inner\.port"):
        resolve_hosts(["inner"], hosts_known(inputs={"port": 0}))
    sensitive = {"cloud": {"ip": OutputValue("192.0.2.9", sensitive=True)}}
    with pytest.raises(SpecError, match="is sensitive") as failed:
        resolve_hosts(["gw"], hosts_known(outputs=sensitive))
    assert "192.0.2.9" not in str(failed.value)


def test_hosts_that_lead_back_to_themselves_end_in_an_error_not_in_recursion() -> None:
    hosts = {"a": {"address": "${{ hosts.b.address }}"}, "b": {"address": "${{ hosts.a.address }}"}}
    with pytest.raises(SpecError, match="leads back to itself"):
        resolve_hosts(["a"], Situation(composition({}, hosts=hosts)))


def test_a_stage_uses_the_hosts_it_names_and_reads_and_those_on_the_way() -> None:
    declared = composition({}, hosts=HOSTS).hosts
    assert hosts_used({"host": "gw"}, declared) == {"gw"}
    assert hosts_used({"hosts": ["far", "elsewhere"]}, declared) == {"far", "inner", "gw"}
    assert hosts_used({"between": [{"host": "gw"}, {"host": "idle"}]}, declared) == {"gw", "idle"}
    assert hosts_used({"from": "inner", "x": "text gw"}, declared) == {"inner", "gw"}
    assert hosts_used({"run": "ping ${{ hosts.idle.address }}"}, declared) == {"idle"}
    assert hosts_used({"host": "here"}, declared) == frozenset()


def test_a_host_named_by_an_expression_counts_once_it_is_known() -> None:
    whole = composition({"with": {"host": "${{ inputs.where }}"}}, hosts=HOSTS)
    assert stage_hosts(whole.stages["x"], {"host": "idle"}, whole) == {"idle"}
