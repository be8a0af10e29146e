"""`hosts.H.fqdn`: which stage gives a host its name, who waits for it, and when it is known."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from skyspan.contracts.network import NetworkSpec
from skyspan.contracts.provider import Spec
from skyspan.model.composition import Composition
from skyspan.model.error import CompositionError, SpecError
from skyspan.model.expression import Reference
from skyspan.model.value import OutputValue, Unknown
from skyspan.planning.draft import Checked
from skyspan.planning.passes import check
from skyspan.planning.resolve import Absent, Situation, resolve_hosts, resolve_settings
from skyspan.planning.source import NoSource


class MeshSpec(NetworkSpec):
    """A network for these tests."""

    domain_setting: ClassVar[str] = "zone"

    hosts: tuple[str, ...]
    zone: str


class AnySpec(Spec):
    """Something that reads a name."""

    text: str = ""
    host: str = ""


def spec_of(kind: str) -> type[Spec]:
    if kind == "nothing":
        raise SpecError("no provider is called 'nothing'")
    return MeshSpec if kind == "mesh" else AnySpec


def checked(stages: dict[str, Any], hosts: dict[str, Any] | None = None, **more: Any) -> Checked:
    hosts = hosts or {"app-1": {"address": "192.0.2.1"}, "db-1": {"address": "192.0.2.2"}}
    raw = {"skyspan": 1, "name": "x", "hosts": hosts, "stages": stages, **more}
    return check(Composition.model_validate(raw), NoSource("skyspan.yaml"), spec_of)


MESH = {"uses": "mesh", "with": {"hosts": ["app-1", "db-1"], "zone": "net.test"}}
READER = {"uses": "any", "with": {"text": "db=${{ hosts.db-1.fqdn }}"}}


def situation(found: Checked, **known: Any) -> Situation:
    return Situation(found.composition, names=found.names, **known)


def test_who_reads_a_name_waits_for_the_stage_that_gives_it() -> None:
    found = checked({"app": READER, "mesh": MESH})
    assert found.needs["app"] == {"mesh"}
    assert found.order == ("mesh", "app")


def test_a_host_that_is_reached_by_such_a_name_makes_its_stages_wait_too() -> None:
    hosts = {"db-1": {"address": "192.0.2.2"}, "inside": {"address": "${{ hosts.db-1.fqdn }}"}}
    mesh = {"uses": "mesh", "with": {"hosts": ["db-1"], "zone": "net.test"}}
    found = checked({"app": {"uses": "any", "with": {"host": "inside"}}, "mesh": mesh}, hosts)
    assert found.needs["app"] == {"mesh"}
    resolved = resolve_hosts(["inside"], situation(found))
    assert isinstance(resolved, dict)
    assert resolved["inside"].address == "db-1.net.test"


def test_a_name_is_known_before_the_host_has_joined() -> None:
    found = checked({"app": READER, "mesh": MESH})
    assert resolve_settings("app", situation(found, pending=frozenset({"mesh"}))) == {"text": "db=db-1.net.test"}


def test_a_name_waits_for_its_domain_and_says_for_what() -> None:
    mesh = {"uses": "mesh", "with": {"hosts": ["db-1"], "zone": "${{ stages.cloud.outputs.zone }}"}}
    found = checked({"app": READER, "mesh": mesh, "cloud": {"uses": "any"}})
    assert found.needs["mesh"] == {"cloud"}
    unknown = resolve_settings("app", situation(found))
    assert unknown == Unknown(frozenset({"stages.cloud.outputs.zone"}))
    known = {"cloud": {"zone": OutputValue("z.test")}}
    assert resolve_settings("app", situation(found, outputs=known)) == {"text": "db=db-1.z.test"}


def test_a_stage_that_was_skipped_gives_no_name() -> None:
    found = checked({"app": READER, "mesh": MESH})
    absent = resolve_settings("app", situation(found, absent={"mesh": "its `if` is false"}))
    assert absent == Absent("mesh", "its `if` is false")
    guarded = checked(
        {"app": {"uses": "any", "with": {"text": "${{ default(hosts.db-1.fqdn, 'none') }}"}}, "mesh": MESH}
    )
    assert resolve_settings("app", situation(guarded, absent={"mesh": "it failed"})) == {"text": "none"}


def test_a_connection_may_hold_the_domain() -> None:
    mesh = {"uses": "mesh", "with": {"connection": "tail", "hosts": ["db-1"]}}
    found = checked({"app": READER, "mesh": mesh}, connections={"tail": {"zone": "c.test"}})
    assert situation(found).lookup(Reference("hosts", ("db-1", "fqdn"))) == "db-1.c.test"


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ({"app": READER}, "no stage gives host db-1 a name"),
        ({"app": READER, "mesh": {"uses": "nothing"}}, "no stage gives host db-1 a name"),
        ({"app": READER, "one": MESH, "two": MESH}, "gets a name from two stages, one and two"),
        (
            {"mesh": {"uses": "mesh", "with": {"hosts": ["db-1"], "zone": "${{ hosts.db-1.fqdn }}"}}},
            "mesh waits for itself",
        ),
    ],
)
def test_a_name_that_nobody_or_too_many_give_is_an_error(stages: dict[str, Any], words: str) -> None:
    with pytest.raises(CompositionError) as error:
        checked(stages)
    assert words in str(error.value)


def test_two_networks_are_no_error_while_nobody_reads_a_name() -> None:
    assert checked({"one": MESH, "two": MESH}).names == {}
