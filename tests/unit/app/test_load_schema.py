"""The schema that editors use agrees with what the loader accepts, and the starter is what both accept."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from skyspan.app.load import load_checked
from skyspan.app.schema import allow_expressions, composition_schema
from skyspan.app.starter import deployment_name, starter
from skyspan.app.yaml_source import parse_yaml
from skyspan.contracts.provider import Spec
from skyspan.model.address import is_name
from skyspan.model.secret import Secret
from skyspan.providers.registry import Registry

jsonschema: Any = importlib.import_module("jsonschema")

GOLDEN = Path(__file__).parents[2] / "golden"


class Inner(Spec):
    """Inside."""

    port: int
    """A port."""


class ExampleSpec(Spec):
    """A provider's settings."""

    count: int
    """How many."""
    title: str = ""
    """A property with an awkward name."""
    mode: str | None = None
    """Any text."""
    inner: tuple[Inner, ...] = ()
    """More."""
    by_name: dict[str, Inner] = {}
    """More, by name."""
    key: Secret | None = None
    """A secret."""


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = composition_schema({"example": ExampleSpec, "command": Registry().spec_of("command")})
    jsonschema.Draft202012Validator.check_schema(schema)
    json.dumps(schema)
    return jsonschema.Draft202012Validator(schema)


def errors(validator: Any, settings: Any, **stage: Any) -> list[str]:
    raw = {"skyspan": 1, "name": "x", "stages": {"a": {"uses": "example", "with": settings, **stage}}}
    return [error.message for error in validator.iter_errors(raw)]


def test_settings_may_be_values_or_expressions_anywhere(validator: Any) -> None:
    expression = "${{ inputs.x }}"
    assert not errors(validator, {"count": 3, "inner": [{"port": 1}], "by_name": {"a": {"port": 2}}})
    assert not errors(validator, {"count": expression, "inner": [{"port": expression}], "key": expression})
    assert not errors(validator, {"count": 1, "inner": expression, "by_name": {"a": expression}})
    assert not errors(validator, {"count": 1, "mode": expression, "title": "t"}, **{"if": expression})


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"count": "three"},
        {"count": 1, "cuont": 2},
        {"count": 1, "inner": [{"port": "x"}]},
        {"count": 1, "inner": [{}]},
    ],
)
def test_wrong_settings_are_marked(validator: Any, settings: Any) -> None:
    assert errors(validator, settings)


def test_a_stage_that_starts_from_a_connection_may_lack_what_that_brings(validator: Any) -> None:
    assert not errors(validator, {"connection": "c"})


@pytest.mark.parametrize("key", ["template", "connection"])
def test_a_template_may_bring_the_provider_too(validator: Any, key: str) -> None:
    assert not errors(validator, {key: "c", "anything": 1}, uses="connection")
    assert not errors(validator, {key: "c"}, uses="example")
    assert errors(validator, {"anything": 1}, uses="connection")
    assert errors(validator, {key: "c", "cuont": 1}, uses="example")


def test_a_connection_is_settings_or_what_a_template_is(validator: Any) -> None:
    def marked(entry: Any) -> list[str]:
        stages = {"a": {"uses": "command", "with": {"run": "true"}}}
        raw = {"skyspan": 1, "name": "x", "stages": stages, "connections": {"c": entry}}
        return [error.message for error in validator.iter_errors(raw)]

    assert not marked({"count": 1, "anything": "else"})
    assert not marked({"uses": "example", "with": {"count": 1}, "description": "ours"})
    assert marked({"with": {"count": 1}})
    assert marked({"uses": "exmaple"})
    assert marked({"uses": "example", "needs": ["a"]})
    assert marked("text")


def test_unknown_keys_and_providers_are_marked(validator: Any) -> None:
    assert errors(validator, {"count": 1}, uses="exmaple")
    assert errors(validator, {"count": 1}, best_efort=True)
    assert errors(validator, {"count": 1}, **{"if": "sometimes"})


def test_a_text_field_stays_plain_as_every_expression_is_a_text() -> None:
    opened = allow_expressions({"properties": {"a": {"type": "string"}, "b": {"type": "string", "pattern": "x"}}})
    assert opened["properties"]["a"] == {"type": "string"}
    assert opened["properties"]["b"]["anyOf"][1] == {"$ref": "#/$defs/expression"}


def test_every_golden_composition_that_is_fine_is_fine_for_the_schema_too() -> None:
    registry = Registry()
    validator = jsonschema.Draft202012Validator(
        composition_schema({kind: registry.spec_of(kind) for kind in registry.kinds()})
    )
    fine = [path for path in GOLDEN.glob("*/skyspan.yaml") if not path.parent.name.startswith("bad_")]
    assert fine
    for path in fine:
        data = parse_yaml(path.read_text(encoding="utf-8"), path.name)[0]
        assert [error.message for error in validator.iter_errors(data)] == [], path


def test_the_starter_is_a_composition_without_any_finding(tmp_path: Path, validator: Any) -> None:
    text = starter("My First.Lab")
    (tmp_path / "skyspan.yaml").write_text(text, encoding="utf-8")
    loaded, checked = load_checked(tmp_path, Registry().spec_of)
    assert loaded.composition.name == "my-first-lab"
    assert checked.order == ("compose", "show")
    assert checked.diagnostics == ()
    assert {stage.uses for stage in loaded.composition.stages.values()} == {"command"}
    assert not list(validator.iter_errors(loaded.raw))


@pytest.mark.parametrize("folder", ["", "---", "42", "Ünïcode", "a" * 100, "x_y-z", "/", "3" * 100])
def test_any_folder_gives_a_valid_name(folder: str) -> None:
    assert is_name(deployment_name(folder))
