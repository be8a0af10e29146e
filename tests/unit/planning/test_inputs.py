"""Which value an input has, and what is said when it has none."""

from __future__ import annotations

from typing import Any

import pytest

from skyspan.model.composition import Composition
from skyspan.model.error import UsageError
from skyspan.model.secret import Secret
from skyspan.planning.inputs import resolve_inputs, variable_of


def composition(**inputs: Any) -> Composition:
    return Composition.model_validate(
        {"skyspan": 1, "name": "x", "inputs": inputs, "stages": {"a": {"uses": "command"}}}
    )


REGION = composition(region={"type": "string", "default": "default"})


def test_the_command_line_goes_before_the_file_the_environment_and_the_default() -> None:
    env = {"SKYSPAN_INPUT_REGION": "env"}
    assert resolve_inputs(REGION, {"region": "line"}, {"region": "file"}, env) == {"region": "line"}
    assert resolve_inputs(REGION, {}, {"region": "file"}, env) == {"region": "file"}
    assert resolve_inputs(REGION, {}, {}, env) == {"region": "env"}
    assert resolve_inputs(REGION) == {"region": "default"}


@pytest.mark.parametrize("key", ["SKYSPAN_INPUT_LAB_CIDR", "LAB_CIDR", "lab_cidr", "lab-cidr"])
def test_the_environment_is_found_with_or_without_its_prefix(key: str) -> None:
    declared = composition(**{"lab-cidr": {"type": "cidr"}})
    assert resolve_inputs(declared, from_env={key: "10.0.0.0/8", "OTHER": "ignored"}) == {"lab-cidr": "10.0.0.0/8"}
    assert variable_of("lab-cidr") == "SKYSPAN_INPUT_LAB_CIDR"


def test_texts_become_what_is_declared() -> None:
    declared = composition(n={"type": "number"}, b={"type": "bool"}, ports={"type": "list<port>"})
    assert resolve_inputs(declared, {"n": "3", "b": "true", "ports": "22,80"}) == {"n": 3, "b": True, "ports": [22, 80]}


def test_a_file_gives_typed_data_which_is_not_reread() -> None:
    with pytest.raises(UsageError, match="from the inputs file: expected a number, got '3'"):
        resolve_inputs(composition(n={"type": "number"}), from_file={"n": "3"})


def test_a_default_of_null_makes_an_input_optional() -> None:
    assert resolve_inputs(composition(tag={"type": "string", "default": None})) == {"tag": None}


def test_sensitive_inputs_become_secrets() -> None:
    declared = composition(
        token={"type": "secret"},
        pin={"type": "number", "sensitive": True},
        keys={"type": "list<string>", "sensitive": True},
    )
    given = resolve_inputs(declared, {"token": "t", "pin": "7", "keys": "a,b"})
    assert given == {"token": Secret("t"), "pin": Secret("7"), "keys": [Secret("a"), Secret("b")]}


def test_a_bad_sensitive_value_is_not_shown() -> None:
    with pytest.raises(UsageError) as failed:
        resolve_inputs(composition(pin={"type": "number", "sensitive": True}), {"pin": "hunter2"})
    assert "hunter2" not in str(failed.value)
    assert "pin" in str(failed.value)


def test_every_problem_is_named_at_once() -> None:
    declared = composition(region={"description": "where"}, count={"type": "number"})
    with pytest.raises(UsageError) as failed:
        resolve_inputs(declared, {"cuont": "3"}, {"count": "x", "zone": 1})
    said = str(failed.value)
    assert "input region: is required (where): --input region=… or SKYSPAN_INPUT_REGION=…" in said
    assert "there is no input 'cuont' (--input); did you mean count?" in said
    assert "there is no input 'zone' (the inputs file)" in said
    assert "input count: from the inputs file: expected a number" in said
    assert failed.value.exit_status == 2
