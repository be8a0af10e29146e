"""Holding a deployment: one run at a time, and none that waits for the dead."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from skyspan.app.holding import RUN_VARIABLE, held
from skyspan.app.session import Session
from skyspan.app.settings import read_settings
from skyspan.contracts.store import Batch, DeploymentRecord, Lease, RunRecord
from skyspan.model.address import DeploymentAddress
from skyspan.model.error import FencedError, RefusedError, StoreError
from skyspan.model.event import RunStarted, StageOutline, StageStarted
from skyspan.model.lifecycle import RunStatus, StageStatus, Verb
from skyspan.secrets.sealing import EnvelopeSealer
from skyspan.testing.fake_clock import FakeClock
from skyspan.testing.memory_store import MemoryStore
from skyspan.transports.leftovers import leftovers

SITE = DeploymentAddress("default", "site")


@pytest.fixture
def session(tmp_path: Path) -> Session:
    settings = read_settings(str(tmp_path / "home"), environ={})
    return Session(settings, MemoryStore(), EnvelopeSealer(tmp_path / "home"), FakeClock())


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
        folder.mkdir(parents=True)
        (folder / lease.run_id).touch()
    return lease


async def test_a_second_run_is_refused_and_what_it_held_is_given_up_afterwards(session: Session) -> None:
    async with held(session, SITE, Verb.UP) as lease:
        assert signs(session) == [lease.run_id]
        with pytest.raises(RefusedError, match=lease.run_id):
            async with held(session, SITE, Verb.DESTROY):
                pass
        assert signs(session) == [lease.run_id], "the one that was refused leaves nothing"
    assert signs(session) == []
    async with held(session, SITE, Verb.UP) as again:
        assert again.epoch > lease.epoch


async def test_a_run_that_died_here_is_taken_over_at_once_and_its_end_is_told(session: Session) -> None:
    dead = await dead_run(session)
    async with held(session, SITE, Verb.UP) as lease:
        assert lease.epoch > dead.epoch
        assert signs(session) == [lease.run_id]
    run = await session.store.run(dead.run_id)
    assert run is not None
    assert (run.status, run.reason) == (RunStatus.LOST, "its process died")
    statuses = {row.name: row.status for row in await session.store.stage_runs(dead.run_id)}
    assert statuses == {"a": StageStatus.LOST, "b": StageStatus.CANCELLED}
    with pytest.raises(FencedError):
        await session.store.append(dead.run_id, dead, Batch(((0.0, StageStarted("b", 1)),)))


async def test_of_a_run_elsewhere_nothing_is_known_so_it_is_waited_for(session: Session) -> None:
    await dead_run(session, sign=False)
    with pytest.raises(RefusedError):
        async with held(session, SITE, Verb.UP):
            pass
    await session.clock.sleep(31)
    async with held(session, SITE, Verb.UP):
        pass


async def test_a_lease_that_cannot_be_given_up_is_found_by_the_next_run(session: Session) -> None:
    class Full(MemoryStore):
        async def release(self, lease: Lease) -> None:
            raise StoreError("no space left")

    memory = session.store
    assert isinstance(memory, MemoryStore)
    full = Full()
    full._memory = memory._memory
    broken = Session(session.settings, full, session.sealer, session.clock)
    async with held(broken, SITE, Verb.UP) as lease:
        pass
    assert signs(session) == [lease.run_id]
    async with held(session, SITE, Verb.UP):
        pass
    assert signs(session) == []


def test_processes_are_found_by_what_they_were_started_with(tmp_path: Path) -> None:
    processes = {
        "101": b"PATH=/bin\0SKYSPAN_RUN=abc\0",
        "99": b"SKYSPAN_RUN=abc\0",
        "102": b"SKYSPAN_RUN=abcd\0",
        "103": b"",
        str(os.getpid()): b"SKYSPAN_RUN=abc\0",
        "self": b"SKYSPAN_RUN=abc\0",
    }
    for name, environ in processes.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "environ").write_bytes(environ)
        (tmp_path / name / "comm").write_text("sh\n")
    (tmp_path / "104").mkdir()
    assert [(item.pid, item.name) for item in leftovers(RUN_VARIABLE, "abc", tmp_path)] == [(99, "sh"), (101, "sh")]
