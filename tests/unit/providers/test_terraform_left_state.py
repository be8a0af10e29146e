"""A state that a tool could not push and saved beside itself is taken up, also when it is the very first one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from skyspan.providers.terraform.endpoint.ledger import read_version
from skyspan.providers.terraform.state import collect, look
from skyspan.testing.provider_world import ProviderWorld

FIRST: dict[str, Any] = {"version": 4, "serial": 1, "lineage": "", "outputs": {}, "resources": []}


@pytest.fixture
def world(tmp_path: Path) -> ProviderWorld:
    return ProviderWorld(tmp_path, {})


async def test_the_first_state_of_all_has_no_lineage_yet_and_gets_one_that_lasts(
    world: ProviderWorld, tmp_path: Path
) -> None:
    left = tmp_path / "errored.tfstate"
    left.write_text(json.dumps(FIRST))
    seen, again = await look(world.reading(), (left,)), await look(world.reading(), (left,))
    assert seen is not None and again is not None
    assert seen.lineage
    assert seen.data == again.data
    version = read_version(seen.data)
    assert version is not None, "the endpoint would take it for no state at all"
    assert (version.lineage, version.serial) == (seen.lineage, 1)
    taken = await collect(world.writing(), (left,))
    assert taken is not None
    assert taken.data == seen.data == world.kept.data["state"]
    assert not left.exists()
    assert "state-errored" not in world.kept.data


async def test_two_first_states_are_told_apart(world: ProviderWorld, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text(json.dumps(FIRST))
    two.write_text(json.dumps({**FIRST, "outputs": {"a": {"value": 1, "type": "number"}}}))
    lineages = set()
    for path in (one, two):
        state = await look(world.reading(), (path,))
        assert state is not None
        lineages.add(state.lineage)
    assert len(lineages) == 2
