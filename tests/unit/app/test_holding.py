"""Holding a deployment: one run at a time, and none that waits for the dead."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from skyspan.app.alive import interrupted_run, live_holder
from skyspan.app.holding import held, new_run_id
from skyspan.app.session import Session
from skyspan.app.settings import read_settings
from skyspan.contracts.store import Batch, DeploymentRecord, Lease, RunRecord
from skyspan.contracts.upkeep import Upkeep
from skyspan.model.address import DeploymentAddress
from skyspan.model.error import FencedError, RefusedError, StoreError
from skyspan.model.event import RunStarted, StageOutline, StageStarted
from skyspan.model.lifecycle import Verb
from skyspan.secrets.sealing import EnvelopeSealer
from skyspan.store.sql import open_store
from skyspan.testing.fake_clock import FakeClock
from skyspan.testing.memory_store import MemoryStore
from skyspan.transports.keeper.identity import boot_id

SITE = DeploymentAddress("default", "site")


@pytest.fixture
def session(tmp_path: Path) -> Session:
    settings = read_settings(str(tmp_path / "home"), environ={})
    return Session(settings, MemoryStore(), EnvelopeSealer(tmp_path / "home"), FakeClock(), no_upkeep)


def no_upkeep() -> Upkeep:
    raise AssertionError("holding takes no care of the store")


def holding(session: Session, verb: Verb = Verb.UP, run_id: str = "") -> AbstractAsyncContextManager[Lease]:
    return held(session, SITE, verb, run_id or new_run_id())


def signs(session: Session) -> list[str]:
    return [path.name for path in (session.settings.home / "running").iterdir()]


async def dead_run(session: Session, *, sign: bool = True) -> Lease:
    """A run whose process died in the middle of its first stage."""
    now = session.clock.now()
    lease = await session.store.acquire(Lease(SITE, "ann@box", 0, now + 30, "deadbeef22", Verb.UP), now)
    await session.store.save_deployment(DeploymentRecord(SITE))
    await session.store.begin_run(RunRecord(lease.run_id, SITE, Verb.UP), lease)
    started = RunStarted(Verb.UP, (StageOutline("a", "command"), StageOutline("b", "command", needs=("a",))))
    await session.store.append(lease.run_id, lease, Batch(((now, started), (now, StageStarted("a", 1)))))
    if sign:
        folder = session.settings.home / "running"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / lease.run_id).write_text(boot_id())
    return lease


async def test_a_second_run_is_refused_and_what_it_held_is_given_up_afterwards(session: Session) -> None:
    async with holding(session, Verb.UP) as lease:
        assert signs(session) == [lease.run_id]
        with pytest.raises(RefusedError, match=lease.run_id):
            async with holding(session, Verb.DESTROY):
                pass
        assert signs(session) == [lease.run_id], "the one that was refused leaves nothing"
    assert signs(session) == []
    async with holding(session, Verb.UP) as again:
        assert again.epoch > lease.epoch


async def test_an_engine_that_was_taken_over_from_is_remembered_whoever_refused_it(session: Session) -> None:
    store = open_store(session.settings.home / "store.sqlite", session.sealer, session.clock)
    with pytest.raises(FencedError):
        async with holding(replace(session, store=store, open_upkeep=store.upkeep)) as lease:
            raise FencedError("another engine took this deployment over", detail="epoch 2 is newer")
    (noted,) = await store.upkeep().accesses(SITE.workspace, SITE.name)
    assert noted.what == "stale engine stopped"
    assert noted.detail == f"run {lease.run_id} under epoch {lease.epoch}: epoch 2 is newer"
    await store.close()


async def test_from_a_run_that_died_here_the_deployment_is_taken_at_once(session: Session) -> None:
    dead = await dead_run(session)
    assert await live_holder(session, SITE) is None
    interrupted = await interrupted_run(session, SITE)
    assert interrupted is not None
    assert interrupted.id == dead.run_id
    async with holding(session) as lease:
        assert lease.epoch > dead.epoch
        assert signs(session) == [lease.run_id]
        assert await live_holder(session, SITE) == lease
    with pytest.raises(FencedError):
        await session.store.append(dead.run_id, dead, Batch(((0.0, StageStarted("b", 1)),)))


async def test_a_run_that_died_here_is_carried_on_under_its_own_name_once_at_a_time(session: Session) -> None:
    dead = await dead_run(session)
    async with holding(session, run_id=dead.run_id) as lease:
        assert (lease.run_id, lease.epoch > dead.epoch) == (dead.run_id, True)
        with pytest.raises(RefusedError, match=dead.run_id):
            async with holding(session, run_id=dead.run_id):
                pass
        assert signs(session) == [dead.run_id], "the one that was refused takes nothing away"
    assert signs(session) == []


async def test_a_run_that_is_at_work_is_not_interrupted(session: Session) -> None:
    assert await interrupted_run(session, SITE) is None
    async with holding(session) as lease:
        await session.store.save_deployment(DeploymentRecord(SITE))
        await session.store.begin_run(RunRecord(lease.run_id, SITE, Verb.UP), lease)
        assert await interrupted_run(session, SITE) is None
    left = await interrupted_run(session, SITE)
    assert left is not None


async def test_of_a_run_elsewhere_nothing_is_known_so_it_is_waited_for(session: Session) -> None:
    await dead_run(session, sign=False)
    with pytest.raises(RefusedError):
        async with holding(session, Verb.UP):
            pass
    await session.clock.sleep(31)
    async with holding(session, Verb.UP):
        pass


async def test_a_lease_that_cannot_be_given_up_is_found_by_the_next_run(session: Session) -> None:
    class Full(MemoryStore):
        async def release(self, lease: Lease) -> None:
            raise StoreError("no space left")

    memory = session.store
    assert isinstance(memory, MemoryStore)
    full = Full()
    full._memory = memory._memory
    broken = Session(session.settings, full, session.sealer, session.clock, no_upkeep)
    async with holding(broken, Verb.UP) as lease:
        pass
    assert signs(session) == [lease.run_id]
    async with holding(session, Verb.UP):
        pass
    assert signs(session) == []


async def test_a_sign_that_was_copied_from_another_machine_says_nothing(session: Session) -> None:
    dead = await dead_run(session)
    sign = session.settings.home / "running" / dead.run_id
    for copied in ("5f3e-of-another-boot 77aa-of-another-machine", "", "\x00\xff half a"):
        sign.write_text(copied)
        assert await live_holder(session, SITE) == dead
        with pytest.raises(RefusedError, match="ann@box"):
            async with holding(session):
                pass
        with pytest.raises(RefusedError):
            async with holding(session, run_id=dead.run_id):
                pass
        sign.write_text(copied)
    await session.clock.sleep(31)
    async with holding(session) as lease:
        assert lease.epoch > dead.epoch


async def test_a_machine_that_was_started_anew_knows_its_own_signs(session: Session, tmp_path: Path) -> None:
    dead = await dead_run(session)
    machine = Path("/etc/machine-id")
    if not machine.exists():
        return
    (session.settings.home / "running" / dead.run_id).write_text(f"an-earlier-boot {machine.read_text().strip()}")
    assert await live_holder(session, SITE) is None
    async with holding(session, run_id=dead.run_id) as lease:
        assert lease.epoch > dead.epoch


async def test_a_clock_that_is_set_back_an_hour_hides_no_death_and_ends_no_life(session: Session) -> None:
    clock = session.clock
    assert isinstance(clock, FakeClock)
    async with holding(session) as living:
        clock.turn(-3600)
        holder = await live_holder(session, SITE)
        assert holder is not None
        assert holder.epoch == living.epoch
        with pytest.raises(RefusedError):
            async with holding(session):
                pass
    dead = await dead_run(session)
    clock.turn(-3600)
    assert await live_holder(session, SITE) is None
    async with holding(session) as lease:
        assert lease.epoch == dead.epoch + 1
