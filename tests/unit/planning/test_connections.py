"""Connections: settings that stages start from, in the composition or as the workspace's templates."""

from __future__ import annotations

import random
from typing import Any

import pytest
from pydantic import Field

from skyspan.contracts.provider import Spec
from skyspan.model.composition import Composition
from skyspan.model.error import CompositionError, SpecError
from skyspan.planning.draft import Checked, Templates
from skyspan.planning.passes import check
from skyspan.planning.resolve import Situation, resolve_settings
from skyspan.planning.settings import laid_over, place_in
from skyspan.planning.source import NoSource


class Keys(Spec):
    """Nested settings."""

    private: str
    """Required."""
    rotate: int = 0
    """Not required."""


class LinkSpec(Spec):
    """A link for these tests."""

    between: tuple[str, ...] = Field(min_length=2)
    """The ends."""
    mtu: int = 1420
    """Largest packet."""
    keys: Keys | None = None
    """A mapping that is merged."""
    note: str | None = None
    """Any text."""


def spec_of(kind: str) -> type[Spec]:
    if kind != "link":
        raise SpecError(f"no provider is called {kind!r}")
    return LinkSpec


HUB = {"uses": "link", "with": {"mtu": 1380, "keys": {"private": "p"}}, "description": "ours"}
ENDS = {"between": ["a", "b"]}


def checked(stages: dict[str, Any], connections: dict[str, Any], templates: Templates | None = None) -> Checked:
    raw = {"skyspan": 1, "name": "app", "stages": stages, "connections": connections, "inputs": {"x": {}}}
    composition = Composition.model_validate(raw)
    return check(composition, NoSource(), spec_of, templates=templates or Templates())


def errors(stages: dict[str, Any], connections: dict[str, Any], templates: Templates | None = None) -> list[str]:
    with pytest.raises(CompositionError) as caught:
        checked(stages, connections, templates)
    return [item.summary for item in caught.value.diagnostics]


def settings(stages: dict[str, Any], connections: dict[str, Any], name: str = "l") -> Any:
    return resolve_settings(name, Situation(checked(stages, connections).composition, inputs={"x": "here"}))


@pytest.mark.parametrize("uses", ["connection", "link"])
@pytest.mark.parametrize("key", ["template", "connection"])
def test_a_stage_starts_from_a_template_by_either_word_and_with_or_without_its_provider(uses: str, key: str) -> None:
    stages = {"l": {"uses": uses, "with": {key: "hub", **ENDS, "keys": {"rotate": 3}}}}
    assert checked(stages, {"hub": HUB}).composition.stages["l"].uses == "link"
    assert settings(stages, {"hub": HUB}) == {
        "between": ["a", "b"],
        "mtu": 1380,
        "keys": {"private": "p", "rotate": 3},
    }


def test_an_entry_that_is_the_settings_themselves_needs_the_provider_in_the_stage() -> None:
    plain = {"hub": {"mtu": 1380}}
    assert settings({"l": {"uses": "link", "with": {"template": "hub", **ENDS}}}, plain)["mtu"] == 1380
    said = errors({"l": {"uses": "connection", "with": {"template": "hub", **ENDS}}}, plain)
    assert said == ["connection hub does not say which provider its settings are for"]


def test_mappings_merge_and_everything_else_replaces() -> None:
    below = {"uses": "x", "with": {"map": {"a": 1, "deep": {"p": 1, "q": 2}}, "list": [1, 2, 3], "text": "t", "n": 1}}
    own = {"template": "c", "map": {"b": 2, "deep": {"q": 3}}, "list": [9], "text": "${{ inputs.x }}", "n": None}
    merged = laid_over(own, {"c": below})
    assert merged == {
        "map": {"a": 1, "b": 2, "deep": {"p": 1, "q": 3}},
        "list": [9],
        "text": "${{ inputs.x }}",
        "n": None,
    }
    assert laid_over({"template": "c", "map": [1]}, {"c": below})["map"] == [1]
    assert laid_over({"template": "c", "list": {"a": 1}}, {"c": below})["list"] == {"a": 1}
    assert below["with"]["map"] == {"a": 1, "deep": {"p": 1, "q": 2}}, "the template itself stays as it is"  # type: ignore[index]


def test_the_place_of_every_setting_is_where_its_value_was_written() -> None:
    """Whatever is laid over whatever: the value at the place that is named is the one that counts."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)

    def some(depth: int) -> Any:
        kind = chance.randrange(4 if depth else 2)
        if kind == 3:
            return [some(depth - 1) for _ in range(chance.randrange(3))]
        return {key: some(depth - 1) for key in chance.sample("abc", chance.randrange(3))} if kind == 2 else object()

    def at(value: Any, loc: tuple[str | int, ...]) -> Any:
        for step in loc:
            value = value[step]
        return value

    def leaves(value: Any, loc: tuple[str | int, ...] = ()) -> Any:
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, item in inner:
            yield from leaves(item, (*loc, key))
        if not isinstance(value, dict | list):
            yield loc, value

    for _ in range(300):
        below = {key: some(3) for key in "abc"}
        own = {**{key: some(3) for key in chance.sample("abcd", chance.randrange(5))}, "template": "c"}
        entry = chance.choice([{"uses": "x", "with": below}, below])
        whole = {"connections": {"c": entry}, "stage": own}
        for loc, value in leaves(laid_over(own, {"c": entry})):
            place = place_in(("stage",), own, {"c": entry}, loc)
            assert at(whole, place) is value, (loc, place, own, below)


def test_what_is_missing_is_told_where_the_stage_could_give_it() -> None:
    place = place_in(("stages", "l", "with"), {"template": "hub"}, {"hub": HUB}, ("between",))
    assert place == ("stages", "l", "with", "between")
    inside = place_in(("stages", "l", "with"), {"template": "hub"}, {"hub": HUB}, ("keys", "private"))
    assert inside == ("connections", "hub", "with", "keys", "private")


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ({"uses": "connection"}, "stage l does not say which connection it uses"),
        ({"uses": "connection", "with": ENDS}, "stage l does not say which connection it uses"),
        ({"uses": "connection", "with": {"template": "huub"}}, "there is no connection 'huub'"),
        ({"uses": "link", "with": {"connection": "huub", **ENDS}}, "there is no connection 'huub'"),
        (
            {"uses": "link", "with": {"connection": "hub", "template": "hub", **ENDS}},
            "stage l names its connection twice",
        ),
        ({"uses": "link", "with": {"template": "${{ inputs.x }}", **ENDS}}, "an expression cannot stand in 'template'"),
        ({"uses": "check", "with": {"template": "hub"}}, "connection hub is for link, but stage l uses check"),
    ],
)
def test_a_stage_that_cannot_have_its_connection_says_why_and_nothing_else(stage: dict[str, Any], said: str) -> None:
    assert [text for text in errors({"l": stage}, {"hub": HUB}) if "is not used" not in text] == [said]


def test_a_template_of_the_workspace_is_suggested_too() -> None:
    with pytest.raises(CompositionError) as caught:
        checked({"l": {"uses": "connection", "with": {"template": "lba"}}}, {}, Templates(frozenset({"lab"})))
    assert caught.value.diagnostics[0].hint.startswith("did you mean lab? ")
    with pytest.raises(CompositionError) as caught:
        checked({"l": {"uses": "connection", "with": {"template": "zzz"}}}, {}, Templates(frozenset({"lab"})))
    assert "skyspan connections add zzz FILE" in caught.value.diagnostics[0].hint


def test_an_entry_is_checked_like_a_template() -> None:
    stages = {"l": {"uses": "link", "with": {"template": "hub", **ENDS}}}
    assert errors(stages, {"hub": {"with": {"mtu": 1}}}) == ["missing key 'uses' in connections.hub"]
    assert errors(stages, {"hub": {**HUB, "usess": 1}}) == ["unknown key 'usess' in connections.hub"]
    assert errors(stages, {"hub": {**HUB, "uses": "${{ inputs.x }}"}}) == ["an expression cannot stand in uses"]
    assert errors(stages, {"hub": {**HUB, "with": {"mtuu": 1}}}) == ["unknown key 'mtuu' in connections.hub.with"]


def test_the_mark_of_a_copy_is_skyspans_own() -> None:
    stages = {"l": {"uses": "connection", "with": {"template": "hub", **ENDS}}}
    copy = {"hub": {**HUB, "origin": "workspace"}}
    assert errors(stages, copy) == ["unknown key 'origin' in connections.hub"]
    assert checked(stages, copy, Templates(taken=frozenset({"hub"}))).composition.stages["l"].uses == "link"


def test_what_a_stage_overrides_is_not_waited_for() -> None:
    connections = {"hub": {"uses": "link", "with": {"note": "${{ stages.first.outputs.x }}", **ENDS}}}
    first = {"uses": "link", "with": ENDS}
    taken = {"first": first, "l": {"uses": "connection", "with": {"template": "hub"}}}
    assert checked(taken, connections).needs["l"] == {"first"}
    overridden = {"first": first, "l": {"uses": "connection", "with": {"template": "hub", "note": "mine"}}}
    assert checked(overridden, connections).needs["l"] == frozenset()
