"""Whether a stage's outputs keep its contract."""

from __future__ import annotations

from typing import Any

import pytest

from skyspan.model.composition import OutputDeclaration
from skyspan.model.error import OutputError
from skyspan.model.secret import Secret
from skyspan.model.value import OutputValue
from skyspan.planning.outputs import check_outputs


def declared(**outputs: Any) -> dict[str, OutputDeclaration]:
    return {name: OutputDeclaration.model_validate(output) for name, output in outputs.items()}


def test_outputs_that_keep_the_contract_come_back_with_the_others() -> None:
    produced = {"ip": OutputValue("192.0.2.1"), "extra": OutputValue([1])}
    assert check_outputs(declared(ip={"type": "ip"}), produced) == produced


def test_declared_sensitivity_marks_an_output_and_undeclared_stays() -> None:
    produced = {
        "a": OutputValue("x"),
        "b": OutputValue("y", sensitive=True),
        "c": OutputValue("z"),
        "d": OutputValue("w"),
    }
    contract = declared(a={"sensitive": True}, b={"type": "string"}, c={"type": "secret"})
    checked = check_outputs(contract, produced)
    assert {name: output.sensitive for name, output in checked.items()} == {"a": True, "b": True, "c": True, "d": False}


def test_an_optional_output_may_be_missing() -> None:
    assert check_outputs(declared(a={"type": "ip", "optional": True}), {}) == {}


def test_every_missing_and_wrong_output_is_named_and_sensitive_ones_are_not_shown() -> None:
    contract = declared(
        gateway_ip={"type": "ip"},
        cidr={"type": "cidr"},
        pin={"type": "number", "sensitive": True},
        port={"type": "port"},
    )
    produced = {
        "gateway_id": OutputValue("i-1"),
        "cidr": OutputValue("10.0.0.1/8"),
        "pin": OutputValue("hunter2"),
        "port": OutputValue(Secret("hunter3"), sensitive=True),
    }
    with pytest.raises(OutputError) as failed:
        check_outputs(contract, produced, "cloud")
    said = str(failed.value)
    assert "stage cloud" in said
    assert "gateway_ip: missing, declared as ip (did you mean gateway_id?)" in said
    assert "cidr: expected a network prefix without host bits (10.0.0.0/8), got '10.0.0.1/8'" in said
    assert "pin: not a number (sensitive, not shown)" in said
    assert "port: not a port (sensitive, not shown)" in said
    assert "hunter" not in said


def test_an_output_of_null_counts_as_missing() -> None:
    with pytest.raises(OutputError, match="a: missing"):
        check_outputs(declared(a={"type": "any"}), {"a": OutputValue(None)})
