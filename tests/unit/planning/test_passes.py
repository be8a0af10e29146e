"""What the passes find out: needs, order, and errors beyond those that the golden compositions show."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import Field

from skyspan.contracts.provider import Spec
from skyspan.model.composition import Composition
from skyspan.model.error import CompositionError, SpecError
from skyspan.model.secret import Secret
from skyspan.planning.draft import Checked
from skyspan.planning.passes import check
from skyspan.planning.select import select
from skyspan.planning.shape import build_spec
from skyspan.planning.source import NoSource


class End(Spec):
    """One end of a link."""

    host: str
    """Where."""
    prefixes: tuple[str, ...] = ()
    """What is behind it."""
    port: int = Field(default=51820, ge=1, le=65535)
    """Where it listens."""


class LinkSpec(Spec):
    """A link for these tests."""

    between: tuple[End, End]
    """The ends."""
    allow: tuple[str, ...] | str = ()
    """What may pass."""
    key: Secret | str | None = None
    """A key."""
    mode: End | dict[str, int] | None = None
    """A union, which pydantic reports branch by branch."""


class AnySpec(Spec):
    """Takes anything."""

    run: Any = None
    """Anything."""
    host: Any = None
    """Anything."""
    hosts: Any = None
    """Anything."""


def spec_of(kind: str) -> type[Spec]:
    found: dict[str, type[Spec]] = {"link": LinkSpec, "any": AnySpec}
    if kind not in found:
        raise SpecError(f"no provider is called {kind!r}", hint="did you mean 'link'?")
    return found[kind]


def checked(stages: dict[str, Any], **rest: Any) -> Checked:
    stages = {name: {"uses": "any", **stage} for name, stage in stages.items()}
    composition = Composition.model_validate({"skyspan": 1, "name": "n", "stages": stages, **rest})
    return check(composition, NoSource(), spec_of)


def summaries(stages: dict[str, Any], **rest: Any) -> list[str]:
    with pytest.raises(CompositionError) as failed:
        checked(stages, **rest)
    return [item.summary for item in failed.value.diagnostics]


def link(**settings: Any) -> dict[str, Any]:
    ends = [{"host": "a"}, {"host": "b"}]
    return {"link": {"uses": "link", "with": {"between": ends, **settings}}}


TWO_HOSTS = {"a": {"address": "192.0.2.1"}, "b": {"address": "192.0.2.2"}}


def test_a_stage_needs_those_it_reads_in_settings_and_condition_and_those_it_names() -> None:
    result = checked(
        {
            "d": {
                "with": {"run": ["${{ stages.a.outputs.x }}"]},
                "if": "${{ stages.b.outputs.y == 1 }}",
                "needs": ["c"],
            },
            "c": {},
            "b": {},
            "a": {},
        }
    )
    assert result.needs == {"a": frozenset(), "b": frozenset(), "c": frozenset(), "d": frozenset("abc")}
    assert result.order == ("c", "b", "a", "d")


def test_a_read_with_a_default_is_a_dependency_too() -> None:
    assert checked({"a": {}, "b": {"with": {"run": "${{ default(stages.a.outputs.x, 1) }}"}}}).needs["b"] == {"a"}


def test_a_stage_needs_what_the_addresses_of_its_hosts_read_even_behind_a_jump() -> None:
    hosts = {
        "gw": {"address": "${{ stages.cloud.outputs.ip }}"},
        "inner": {"address": "10.0.0.1", "jump": "gw"},
        "twin": {"address": "${{ hosts.inner.address }}"},
        "lab": {"address": "192.0.2.1"},
    }
    result = checked(
        {
            "cloud": {},
            "direct": {"with": {"host": "gw"}},
            "jumped": {"with": {"hosts": ["lab", "inner"]}},
            "read": {"with": {"run": "ping ${{ hosts.twin.address }}"}},
            "free": {"with": {"host": "lab"}},
        },
        hosts=hosts,
    )
    assert [sorted(result.needs[name]) for name in ("direct", "jumped", "read", "free")] == [["cloud"]] * 3 + [[]]


def test_a_connection_brings_its_dependencies_along() -> None:
    connections = {"c": {"run": "${{ stages.a.outputs.x }}"}}
    assert checked({"a": {}, "b": {"with": {"connection": "c"}}}, connections=connections).needs["b"] == {"a"}


def test_an_undeclared_output_is_open_only_where_nothing_is_declared() -> None:
    reader = {"with": {"run": "${{ stages.a.outputs.y }}"}}
    checked({"a": {}, "b": reader})
    assert summaries({"a": {"outputs": {"x": {}}}, "b": reader}) == ["stage a declares no output 'y'"]


def test_settings_are_checked_around_expressions() -> None:
    inputs = {"x": {"default": "y"}}
    fine = link(allow="${{ inputs.x }}", key="${{ secrets.k }}", mode={"a": "${{ inputs.x }}"})
    fine["link"]["with"]["between"][0]["port"] = "${{ inputs.x }}"
    checked(fine, hosts=TWO_HOSTS, inputs=inputs)
    checked({"link": {"uses": "link", "with": {"between": "${{ inputs.x }}"}}}, inputs=inputs)


def test_a_wrong_key_or_a_missing_one_is_found_beside_expressions() -> None:
    raw = link()
    raw["link"]["with"]["between"] = [{"host": "a", "prefixs": ["${{ inputs.x }}"]}, {"prefixes": ["${{ inputs.x }}"]}]
    assert summaries(raw, hosts=TWO_HOSTS, inputs={"x": {"default": "y"}}) == [
        "missing key 'host' in stages.link.with.between[1]",
        "unknown key 'prefixs' in stages.link.with.between[0]",
    ]


def test_a_wrong_value_beside_an_expression_is_found() -> None:
    raw = link(allow=["${{ inputs.x }}", 5])
    raw["link"]["with"]["between"][0]["port"] = 70000
    assert summaries(raw, hosts=TWO_HOSTS, inputs={"x": {"default": "y"}})[0].startswith(
        "stages.link.with.between[0].port: must be less than or equal to 65535"
    )


def test_an_error_in_a_connection_is_reported_there() -> None:
    raw = {"l": {"uses": "link", "with": {"connection": "c", "between": [{"host": "a"}, {"host": "b"}]}}}
    said = summaries(raw, hosts=TWO_HOSTS, connections={"c": {"alow": []}})
    assert said == ["unknown key 'alow' in connections.c"]


def test_an_unknown_provider_is_reported_with_its_hint() -> None:
    with pytest.raises(CompositionError) as failed:
        checked({"a": {"uses": "lnik"}})
    assert failed.value.diagnostics[0].hint == "did you mean 'link'?"


def test_without_models_settings_are_not_checked() -> None:
    raw = {"skyspan": 1, "name": "n", "stages": {"a": {"uses": "whatever", "with": {"x": 1}}}}
    assert check(Composition.model_validate(raw), NoSource()).order == ("a",)


def test_a_resolved_spec_is_built_or_refused_without_showing_secrets() -> None:
    ends = [{"host": "a"}, {"host": "b"}]
    built = build_spec("link", LinkSpec, {"between": ends, "key": Secret("k")})
    assert isinstance(built, LinkSpec)
    assert built.key == Secret("k")
    with pytest.raises(SpecError) as failed:
        build_spec("link", LinkSpec, {"between": [{"host": Secret("hunter2")}, {"port": "x"}], "extra": 1})
    said = str(failed.value)
    assert "the settings of stage link cannot work" in said
    assert "stages.link.with.between[0].host: expected a text (put quotes around it), got a secret" in said
    assert "stages.link.with.between[1].host: missing" in said
    assert "stages.link.with.extra: unknown key" in said
    assert "hunter2" not in said


def test_only_takes_a_stage_and_everything_it_needs() -> None:
    needs = {"a": frozenset[str](), "b": frozenset({"a"}), "c": frozenset({"b"}), "d": frozenset[str]()}
    assert select(needs, ["b"]) == {"a", "b"}
    assert select(needs, []) == {"a", "b", "c", "d"}
    from skyspan.model.error import UsageError

    with pytest.raises(UsageError, match="there is no stage 'x'"):
        select(needs, ["x"])
