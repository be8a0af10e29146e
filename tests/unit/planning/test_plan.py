"""Plans: as published, as saved, and whether an apply agrees with them."""

from __future__ import annotations

import json

import pytest

from skyspan.model.change import Action, Change, ResourceChange
from skyspan.model.error import UsageError
from skyspan.planning.plan import Plan, PlannedStage, SavedPlan, agrees

VPC = ResourceChange("aws_vpc.main", Action.CREATE)
EIP = ResourceChange("aws_eip.gw", Action.CREATE)
GONE = ResourceChange("aws_vpc.main", Action.DESTROY)


def plan(*changes: Change) -> Plan:
    stages = tuple(PlannedStage(f"s{place}", "terraform", change) for place, change in enumerate(changes))
    return Plan("hybrid", stages, "inputs-digest", "composition-digest")


CREATE = Change(Action.CREATE, "absent", (VPC,), based_on="f1", meaning="m1")
DEFERRED = Change.deferred(frozenset({"stages.cloud.outputs.ip"}))


def test_a_plan_is_published_as_pinned() -> None:
    assert plan(CREATE, DEFERRED, Change(Action.NONE)).to_json() == {
        "deployment": "hybrid",
        "stages": [
            {
                "name": "s0",
                "uses": "terraform",
                "change": "create",
                "reason": "absent",
                "unknown": [],
                "resources": [{"address": "aws_vpc.main", "action": "create"}],
            },
            {
                "name": "s1",
                "uses": "terraform",
                "change": "deferred",
                "reason": "waits for stages.cloud.outputs.ip",
                "unknown": ["stages.cloud.outputs.ip"],
                "resources": [],
            },
            {"name": "s2", "uses": "terraform", "change": "none", "reason": "", "unknown": [], "resources": []},
        ],
        "summary": {"none": 1, "create": 1, "update": 0, "replace": 0, "destroy": 0, "deferred": 1},
    }


def test_only_a_plan_of_nothing_but_none_has_no_changes() -> None:
    assert plan(CREATE, Change(Action.NONE)).has_changes
    assert plan(DEFERRED).has_changes
    assert not plan(Change(Action.NONE)).has_changes
    assert not plan().has_changes


def test_a_saved_plan_comes_back_through_json_and_keeps_what_a_newer_version_added() -> None:
    saved = SavedPlan(plan(CREATE, DEFERRED), created_at=12.5, only=("s0",))
    data = json.loads(json.dumps(saved.to_json() | {"cost": {"month": 3}}))
    restored = SavedPlan.from_json(data)
    assert restored == saved
    assert restored.plan.change_of("s0") == CREATE
    assert restored.plan.change_of("nobody") is None
    assert restored.to_json() == data


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "no saved plan"),
        ({"format_version": "1.2"}, "no saved plan"),
        ({"skyspan_plan": 99}, "format 99"),
        ({"skyspan_plan": 1, "deployment": "d"}, "damaged"),
        (
            {"skyspan_plan": 1, "deployment": "d", "stages": [{"name": "a", "uses": "b", "change": "explode"}]},
            "damaged",
        ),
    ],
)
def test_what_is_no_saved_plan_is_refused(data: object, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        SavedPlan.from_json(data)


@pytest.mark.parametrize(
    ("approved", "actual"),
    [
        (CREATE, Change(Action.NONE)),
        (Change(Action.DESTROY), Change(Action.NONE)),
        (CREATE, Change(Action.CREATE, "other words", (VPC,), based_on="f2", meaning="m1")),
        (Change(Action.UPDATE, resources=(VPC, EIP)), Change(Action.UPDATE, resources=(EIP, VPC))),
        (DEFERRED, CREATE),
        (DEFERRED, Change(Action.UPDATE)),
        (DEFERRED, DEFERRED),
        (DEFERRED, Change(Action.NONE)),
    ],
)
def test_an_apply_that_does_what_was_approved_agrees(approved: Change, actual: Change) -> None:
    assert agrees(approved, actual) is None


@pytest.mark.parametrize(
    ("approved", "actual", "said"),
    [
        (Change(Action.NONE), CREATE, "the plan says none, now it would create"),
        (CREATE, Change(Action.REPLACE, meaning="m1"), "the plan says create, now it would replace"),
        (CREATE, Change(Action.CREATE, resources=(VPC, EIP), meaning="m2"), "it would also create aws_eip.gw"),
        (Change(Action.CREATE, resources=(VPC, EIP), meaning="m2"), CREATE, "it would no longer create aws_eip.gw"),
        (CREATE, Change(Action.CREATE, resources=(VPC,), meaning="m2"), "with other values than the plan"),
        (Change(Action.UPDATE), Change(Action.UPDATE, resources=(GONE,)), "also destroy aws_vpc.main"),
        (DEFERRED, Change(Action.REPLACE), "the plan deferred it, now it would replace"),
        (DEFERRED, Change(Action.DESTROY), "the plan deferred it, now it would destroy"),
        (DEFERRED, Change(Action.UPDATE, resources=(GONE,)), "the plan deferred it, now it would destroy aws_vpc.main"),
        (CREATE, DEFERRED, "the plan says create, now it would deferred"),
    ],
)
def test_an_apply_that_goes_beyond_says_how(approved: Change, actual: Change, said: str) -> None:
    assert said in (agrees(approved, actual) or "")
