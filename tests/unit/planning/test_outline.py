"""Runs in outline: forward from the file, backward from the records, and stages that left the file."""

from __future__ import annotations

from typing import Any

import pytest

from skyspan.contracts.store import StageRecord
from skyspan.model.address import DeploymentAddress
from skyspan.model.composition import Composition
from skyspan.model.error import UsageError
from skyspan.model.lifecycle import Verb
from skyspan.planning.draft import Checked
from skyspan.planning.graph import topological_order
from skyspan.planning.outline import outline
from skyspan.planning.passes import check
from skyspan.planning.source import NoSource
from skyspan.planning.teardown import combined_needs, removed_stages, teardown_needs

HERE = DeploymentAddress("w", "d")


def record(name: str, *needs: str, order: int = 0, **more: Any) -> StageRecord:
    return StageRecord(HERE.stage(name), "command", {}, needs=needs, order=order, present=True, **more)


def checked(**stages: list[str]) -> Checked:
    raw = {name: {"uses": "command", "needs": needs} for name, needs in stages.items()}
    return check(Composition.model_validate({"skyspan": 1, "name": "n", "stages": raw}), NoSource())


CHAIN = (record("a", order=0), record("b", "a", order=1), record("c", "b", order=2), record("lone", order=3))


def needs_of(verb: Verb, *args: Any) -> dict[str, tuple[str, ...]]:
    return {stage.name: stage.needs for stage in outline(verb, *args)}


def test_up_follows_the_file() -> None:
    assert needs_of(Verb.UP, checked(c=["b"], b=["a"], a=[])) == {"a": (), "b": ("a",), "c": ("b",)}


def test_policies_reach_the_outline() -> None:
    raw = {"uses": "http", "best_effort": True, "timeout": "2m", "retry": {"attempts": 5, "backoff": 1, "on": "any"}}
    composition = Composition.model_validate({"skyspan": 1, "name": "n", "stages": {"a": raw}})
    (stage,) = outline(Verb.UP, check(composition, NoSource()))
    assert (stage.uses, stage.best_effort, stage.timeout_s) == ("http", True, 120.0)
    assert (stage.attempts, stage.backoff_s, stage.retry_any) == (5, 1.0, True)


def test_destroy_and_stop_go_backward_from_the_records() -> None:
    for verb in (Verb.DESTROY, Verb.STOP):
        assert needs_of(verb, None, CHAIN) == {"lone": (), "c": (), "b": ("c",), "a": ("b",)}


def test_destroying_one_stage_takes_those_built_upon_it_first() -> None:
    assert needs_of(Verb.DESTROY, None, CHAIN, ["b"]) == {"c": (), "b": ("c",)}
    with pytest.raises(UsageError):
        outline(Verb.DESTROY, None, CHAIN, ["x"])


def test_start_and_check_can_do_without_a_file() -> None:
    assert needs_of(Verb.START, None, CHAIN) == {"a": (), "b": ("a",), "c": ("b",), "lone": ()}
    with pytest.raises(ValueError, match="needs a composition"):
        outline(Verb.UP, None, CHAIN)


def test_only_limits_up_to_a_stage_and_what_it_needs_and_leaves_removed_ones_alone() -> None:
    assert needs_of(Verb.UP, checked(a=[], b=["a"], c=["b"]), (record("old"),), ["b"]) == {"a": (), "b": ("a",)}


def test_a_stage_that_left_the_file_is_destroyed_in_the_same_run() -> None:
    stages = {stage.name: stage for stage in outline(Verb.UP, checked(a=[]), (record("old", best_effort=True),))}
    assert stages["old"].removed
    assert stages["old"].best_effort
    assert not stages["a"].removed
    assert list(stages) == ["old", "a"]


def test_removed_stages_go_backward_among_themselves() -> None:
    assert needs_of(Verb.PLAN, checked(a=[]), CHAIN) == {"lone": (), "c": (), "b": ("c",), "a": ()}
    assert [item.address.name for item in removed_stages(CHAIN, {"a"})] == ["lone", "c", "b"]


def test_a_removed_stage_waits_for_what_was_built_upon_it_and_stays() -> None:
    assert needs_of(Verb.UP, checked(a=[], c=["a"]), CHAIN) == {"lone": (), "a": (), "c": ("a",), "b": ("c",)}


def test_nothing_waits_for_a_removed_stage() -> None:
    combined = combined_needs({"a": (), "c": ("a",)}, CHAIN)
    assert all("b" not in needed for needed in combined.values())
    assert topological_order(combined)


def test_records_that_go_in_a_circle_are_torn_down_by_the_order_they_were_made_in() -> None:
    tangled = (record("a", "b", order=0), record("b", "a", order=1), record("c", "b", order=2))
    needs = teardown_needs(tangled)
    assert needs == {"c": (), "b": ("c",), "a": ("b",)}


def test_check_covers_the_file_without_destroying_anything() -> None:
    assert needs_of(Verb.CHECK, checked(a=[]), (record("old"),)) == {"a": ()}
