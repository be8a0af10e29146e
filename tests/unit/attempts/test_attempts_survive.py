"""The engine dies at every write, just before and just after it; the next run ends right all the same."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.attempt_rig import Rig

from skyspan.contracts.store import Batch, Lease
from skyspan.model.error import StoreUnavailableError
from skyspan.model.lifecycle import RunStatus, Verb
from skyspan.testing.fake_provider import FakeWorld
from skyspan.testing.memory_store import MemoryStore

STAGES: dict[str, Any] = {
    "cloud": {"with": {"outputs": {"ip": "10.0.0.1"}}},
    "lab": {},
    "link": {"uses": "startable", "with": {"value": "${{ stages.cloud.outputs.ip }}"}, "needs": ["lab"]},
    "use": {"needs": ["link"], "best_effort": True},
}
WRITES = range(1, 8)
"""More than any of these runs makes."""


@dataclass
class Fate:
    """Whether the process still lives: once it is dead, nothing it tries has any effect."""

    dies_at: int
    after: bool
    writes: int = 0
    dead: bool = False


class MortalStore(MemoryStore):
    fate = Fate(0, after=False)

    async def append(self, run_id: str, lease: Lease, batch: Batch) -> None:
        self.fate.writes += 1
        now = self.fate.writes == self.fate.dies_at
        self.fate.dead |= now and not self.fate.after
        if self.fate.dead:
            raise StoreUnavailableError("dead")
        await super().append(run_id, lease, batch)
        self.fate.dead |= now and self.fate.after


class MortalWorld(FakeWorld):
    fate = Fate(0, after=False)

    def begin(self, verb: str, stage: str) -> None:
        if self.fate.dead:
            raise RuntimeError("dead")
        super().begin(verb, stage)


def mortal_rig(folder: Path) -> Rig:
    return Rig(folder, world=MortalWorld(), store=MortalStore())


async def die(rig: Rig, verb: Verb, fate: Fate) -> None:
    """A run that dies; afterwards another process could take over."""
    rig.store.fate = rig.world.fate = fate  # type: ignore[attr-defined]
    with contextlib.suppress(StoreUnavailableError):
        await rig.run(verb, None if verb.reverse else STAGES)
    rig.store.fate = rig.world.fate = Fate(0, after=False)  # type: ignore[attr-defined]
    rig.clock.advance(60)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("write", WRITES)
async def test_an_up_that_died_is_finished_by_the_next_and_makes_nothing_twice(
    tmp_path: Path, write: int, after: bool
) -> None:
    rig = mortal_rig(tmp_path)
    await die(rig, Verb.UP, Fate(write, after))
    assert set(rig.world.things) <= set(await rig.records()), "whatever was touched is on record"
    ran = await rig.up(STAGES)
    assert ran.ended.status is RunStatus.SUCCEEDED
    assert rig.world.made == len(STAGES)
    assert all(record.present and record.fingerprint for record in (await rig.records()).values())
    assert set((await rig.up(STAGES)).statuses().values()) == {"unchanged"}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("write", WRITES)
async def test_an_up_that_died_can_be_destroyed_and_leaves_nothing(tmp_path: Path, write: int, after: bool) -> None:
    rig = mortal_rig(tmp_path)
    await die(rig, Verb.UP, Fate(write, after))
    ran = await rig.run(Verb.DESTROY)
    assert ran.ended.status is RunStatus.SUCCEEDED
    assert rig.world.things == {}
    assert await rig.records() == {}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("write", WRITES)
async def test_a_destroy_that_died_is_finished_by_the_next(tmp_path: Path, write: int, after: bool) -> None:
    rig = mortal_rig(tmp_path)
    await rig.up(STAGES)
    await die(rig, Verb.DESTROY, Fate(write, after))
    assert set(rig.world.things) <= set(await rig.records())
    await rig.run(Verb.DESTROY)
    assert rig.world.things == {}
    assert await rig.records() == {}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("write", WRITES)
async def test_a_stop_that_died_is_finished_by_the_next_and_up_brings_everything_back(
    tmp_path: Path, write: int, after: bool
) -> None:
    rig = mortal_rig(tmp_path)
    await rig.up(STAGES)
    await die(rig, Verb.STOP, Fate(write, after))
    assert (await rig.run(Verb.STOP)).statuses()["link"] == "stopped"
    await die(rig, Verb.START, Fate(write, after))
    assert (await rig.up(STAGES)).ended.status is RunStatus.SUCCEEDED
    assert not rig.world.things["link"].stopped
    assert rig.world.made == len(STAGES)
