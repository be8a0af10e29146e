"""From a plan to a change: resources, certain outputs, meaning, drift."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from skyspan.model.change import Action, ResourceChange
from skyspan.model.value import OutputValue
from skyspan.providers.terraform.parse import Moved
from skyspan.providers.terraform.planned import (
    certain_outputs,
    drift_of,
    meaning_of,
    reason_of,
    resource_changes,
    stage_action,
)

SAMPLES = Path(__file__).parent / "terraform_samples"
BOTH = pytest.mark.parametrize("tool", ["tofu", "terraform"])


def shown(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((SAMPLES / name).read_bytes())
    return document


@BOTH
def test_only_outputs_that_are_wholly_known_are_certain(tool: str) -> None:
    assert certain_outputs(shown(f"{tool}-show-create.json")) == {
        "size": OutputValue(1),
        "password": OutputValue("hush-hush", sensitive=True),
        "shape": OutputValue([1, "a", {"x": True}]),
    }


def test_an_output_with_an_unknown_part_is_left_out() -> None:
    document = {
        "planned_values": {"outputs": {"a": {"value": {"known": 1}}, "b": {"value": [1]}}},
        "output_changes": {"a": {"after_unknown": {"known": False, "id": True}}, "b": {"after_unknown": [False]}},
    }
    assert list(certain_outputs(document)) == ["b"]


@BOTH
def test_the_meaning_is_the_same_whatever_time_order_and_state_say(tool: str) -> None:
    document = shown(f"{tool}-show-change.json")
    other = copy.deepcopy(document)
    other["timestamp"] = "2000-01-01T00:00:00Z"
    other["resource_changes"].reverse()
    other["prior_state"] = {}
    other["relevant_attributes"] = []
    assert meaning_of(other) == meaning_of(document)


@BOTH
def test_the_meaning_differs_for_another_action_value_address_or_unknown(tool: str) -> None:
    document = shown(f"{tool}-show-change.json")

    def altered(**edits: Any) -> str:
        other = copy.deepcopy(document)
        resource = next(item for item in other["resource_changes"] if item["address"] == "terraform_data.plain")
        resource["address"] = edits.pop("address", resource["address"])
        resource["change"] |= edits
        return meaning_of(other)

    meanings = [
        altered(),
        altered(address="terraform_data.else"),
        altered(actions=["delete", "create"]),
        altered(after={"input": {"size": 3}}),
        altered(after_unknown={"id": True}),
        altered(importing={"id": "x"}),
    ]
    assert len(set(meanings)) == len(meanings)


@BOTH
def test_of_a_sensitive_value_only_whether_it_changes_takes_part(tool: str) -> None:
    same, changed = shown(f"{tool}-show-change.json"), shown(f"{tool}-show-change-password.json")
    assert meaning_of(same) != meaning_of(changed)
    other = json.loads(json.dumps(changed).replace("other-one", "yet-another"))
    assert meaning_of(other) == meaning_of(changed)


def test_a_replacement_of_one_resource_is_one_of_the_stage() -> None:
    resources = (ResourceChange("a.a", Action.UPDATE), ResourceChange("a.b", Action.REPLACE))
    assert stage_action(resources, exists=True) is Action.REPLACE
    assert stage_action(resources[:1], exists=True) is Action.UPDATE
    assert stage_action(resources, exists=False) is Action.CREATE


def test_the_reason_counts_what_would_be_done() -> None:
    moved = [
        Moved(f"a.{at}", action, "planned") for at, action in enumerate([Action.DESTROY, Action.CREATE, Action.CREATE])
    ]
    assert reason_of(resource_changes(moved), ()) == "2 to create, 1 to destroy"
    taken = ResourceChange("a.i", Action.UPDATE, "imported")
    assert reason_of([*resource_changes(moved), taken], ()) == "2 to create, 1 to destroy, 1 to import"
    assert reason_of((), ("x", "y")) == "outputs change: x, y"
    assert reason_of((), ()) == "only the state's bookkeeping changes"


def test_drift_is_what_must_be_changed_back_with_what_happened_to_it() -> None:
    planned = [Moved("a.gone", Action.CREATE, "planned"), Moved("a.edited", Action.UPDATE, "planned")]
    drifted = [
        Moved("a.gone", Action.DESTROY, "drifted"),
        Moved("a.edited", Action.UPDATE, "drifted"),
        Moved("a.harmless", Action.UPDATE, "drifted"),
    ]
    changes, reason = drift_of(planned, drifted, ())
    assert changes == (
        ResourceChange("a.edited", Action.UPDATE, "changed outside"),
        ResourceChange("a.gone", Action.CREATE, "gone"),
    )
    assert reason == "changed outside: a.edited (changed outside), a.gone (gone)"


def test_drift_without_need_for_a_change_is_none() -> None:
    assert drift_of((), [Moved("a.b", Action.UPDATE, "drifted")], ()) == ((), "")


def test_an_edited_configuration_is_told_apart_from_a_change_outside() -> None:
    changes, reason = drift_of([Moved("a.b", Action.UPDATE, "planned")], (), ("x",))
    assert changes == (ResourceChange("a.b", Action.UPDATE),)
    assert reason == "it is not what the configuration says"
    assert drift_of((), (), ("x",))[0] == (ResourceChange("output.x", Action.UPDATE),)
