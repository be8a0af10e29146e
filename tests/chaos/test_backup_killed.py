"""Backups and restores killed at any moment, or of a store at work: a whole file or none, all rows or none."""

from __future__ import annotations

import asyncio
import gzip
import os
import random
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
from tests.support.postgres import PostgresServer

from skyspan.app.backup import backup, restore, verify
from skyspan.app.session import open_session
from skyspan.app.settings import Settings, read_settings
from skyspan.contracts.store import Batch
from skyspan.model.error import NotFoundError, RefusedError, SealError, StoreCorruptError, UsageError
from skyspan.model.event import StageStarted
from skyspan.model.secret import Secret
from skyspan.secrets.locked import rotating
from skyspan.testing.conformance.store_world import EVERY_EVENT, HYBRID, batch, cloud_record, lease_of, line, started

pytestmark = pytest.mark.chaos

DATABASES = ("sqlite", "postgresql")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as running:
        yield running


class Place(Protocol):
    """Settings for a home of the given name with an empty store of the given kind."""

    def __call__(self, name: str, kind: str, **env: str) -> Settings: ...


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    used = False

    def make(name: str, kind: str, **env: str) -> Settings:
        nonlocal used
        if kind == "postgresql":
            used = True
            env["SKYSPAN_STORE"] = request.getfixturevalue("server").database()
        return read_settings(str(tmp_path / name), environ=env)

    yield make
    if used:
        request.getfixturevalue("server").reclaim()


async def fill(settings: Settings) -> None:
    async with open_session(settings) as session:
        lease = await started(session.store)
        put = Batch(batch(*EVERY_EVENT).events, put=(cloud_record(),))
        await session.store.append("run-0001", lease, put)
        for _ in range(20):
            await session.store.append_log([line("x" * 200)] * 500)
        await session.store.kept(HYBRID.stage("cloud"), lease.epoch).put("state", b"state" * 1000)
        await session.store.put_secret("default", "token", Secret("s3cret"))
        await session.store.release(lease)


async def assert_filled(settings: Settings) -> None:
    async with open_session(settings) as session:
        assert (await session.upkeep.survey()).flaws == ()
        assert await session.store.secret("default", "token") == Secret("s3cret")
        assert list(await session.store.stage_records(HYBRID)) == [cloud_record()]
        assert len(await session.store.events("run-0001")) == len(EVERY_EVENT)
        assert len(await session.store.log("run-0001", limit=100_000)) == 10_000
        assert await session.store.kept(HYBRID.stage("cloud"), 0).get("state") == b"state" * 1000


@pytest.mark.parametrize("target", DATABASES)
@pytest.mark.parametrize("source", DATABASES)
async def test_a_backup_of_one_database_restores_into_any_other(
    place: Place, tmp_path: Path, source: str, target: str
) -> None:
    passphrase = {"SKYSPAN_PASSPHRASE": "correct horse"}
    old, new = place("old", source, **passphrase), place("new", target, **passphrase)
    await fill(old)
    file = tmp_path / "store.backup"
    async with open_session(old) as session:
        written = await backup(session, file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert written["key_file"] is None
    async with open_session(new) as session:
        restored = await restore(session, file, replace=False)
    assert (restored["rows"], restored["flaws"]) == (written["rows"], [])
    await assert_filled(new)
    wrong = place("wrong", "sqlite", SKYSPAN_PASSPHRASE="wrong")
    async with open_session(wrong) as session:
        with pytest.raises(SealError):
            await restore(session, file, replace=False)
        assert await session.upkeep.empty()
    assert not list((tmp_path / "wrong").glob("pass*"))


async def test_a_key_file_never_leaves_its_home_and_is_needed_to_restore(place: Place, tmp_path: Path) -> None:
    old, new = place("old", "sqlite"), place("new", "sqlite")
    await fill(old)
    file = tmp_path / "store.backup"
    async with open_session(old) as session:
        written = await backup(session, file)
    key = (old.home / "key").read_bytes()
    assert written["key_file"] == str(old.home / "key")
    content = gzip.decompress(file.read_bytes())
    assert key.split()[2] not in content
    assert b"s3cret" not in content
    async with open_session(new) as session:
        with pytest.raises(SealError, match="key file that this home does not have") as caught:
            await restore(session, file, replace=False)
        assert "--key" in caught.value.hint
        copy = tmp_path / "key.copy"
        copy.write_bytes(key)
        copy.chmod(0o600)
        await restore(session, file, replace=False, key=copy)
    assert (new.home / "key").read_bytes() != key
    await assert_filled(new)


async def test_a_restore_into_the_same_home_after_a_rotation_opens_everything(place: Place, tmp_path: Path) -> None:
    from skyspan.app.rotation import rotate_data

    settings = place("home", "sqlite")
    await fill(settings)
    file = tmp_path / "store.backup"
    async with open_session(settings) as session:
        await backup(session, file)
        await rotate_data(session)
        await session.store.put_secret("default", "later", Secret("x"))
        with pytest.raises(UsageError, match="not empty") as caught:
            await restore(session, file, replace=False)
        assert "--replace" in caught.value.hint
        await restore(session, file, replace=True)
    await assert_filled(settings)


async def test_a_backup_while_somebody_writes_is_of_one_moment(place: Place, tmp_path: Path) -> None:
    settings, other = place("home", "sqlite"), place("other", "sqlite")
    await fill(settings)
    async with open_session(settings) as session:
        now = session.clock.now()
        lease = await session.store.acquire(lease_of("ann", expires_at=now + 300), now)
        going = True

        async def write() -> None:
            number = 0
            while going:
                number += 1
                await session.store.append("run-0001", lease, batch(StageStarted("cloud", number)))

        writing = asyncio.create_task(write())
        files = []
        for number in range(4):
            files.append(tmp_path / f"{number}.backup")
            await backup(session, files[-1])
        going = False
        await writing
    sizes = []
    for file in files:
        async with open_session(other) as session:
            await restore(session, file, replace=not await session.upkeep.empty(), key=settings.home / "key")
            assert (await session.upkeep.survey()).flaws == ()
            sizes.append(len(await session.store.events("run-0001", limit=100_000)))
    assert sizes == sorted(sizes)
    assert sizes[-1] > sizes[0]


async def test_a_store_somebody_works_with_is_not_replaced(place: Place, tmp_path: Path) -> None:
    settings = place("home", "sqlite")
    await fill(settings)
    file = tmp_path / "store.backup"
    async with open_session(settings) as session:
        await backup(session, file)
        now = session.clock.now()
        await session.store.acquire(lease_of("ann", expires_at=now + 300), now)
        with pytest.raises(RefusedError, match="ann"):
            await restore(session, file, replace=True)
    await assert_filled(settings)


async def test_a_damaged_store_is_moved_aside_by_a_restore(place: Place, tmp_path: Path) -> None:
    settings = place("home", "sqlite")
    await fill(settings)
    file = tmp_path / "store.backup"
    async with open_session(settings) as session:
        await backup(session, file)
    noise = random.Random(1).randbytes(50_000)
    Path(settings.store).write_bytes(noise)
    async with open_session(settings) as session:
        with pytest.raises(StoreCorruptError):
            await restore(session, file, replace=False)
        restored = await restore(session, file, replace=True)
    assert Path(restored["moved_aside"]).read_bytes() == noise
    await assert_filled(settings)


async def test_every_damage_of_a_backup_is_seen_before_anything_is_touched(place: Place, tmp_path: Path) -> None:
    settings = place("home", "sqlite")
    await fill(settings)
    file = tmp_path / "store.backup"
    async with open_session(settings) as session:
        await backup(session, file)
    good = file.read_bytes()
    chance = random.Random(3)
    for _ in range(60):
        bad = bytearray(good)
        bad[chance.randrange(12, len(bad))] ^= 1 << chance.randrange(8)
        file.write_bytes(bad)
        with pytest.raises(StoreCorruptError):
            verify(file)
    lines = gzip.decompress(good).splitlines(keepends=True)
    for cut in (lines[:-1], lines[:5], [], lines[1:], [*lines[:5], *lines[6:]], [*lines[:-1], *lines[-2:]]):
        file.write_bytes(gzip.compress(b"".join(cut)))
        with pytest.raises(StoreCorruptError):
            verify(file)
    for size in (0, 1, 10, len(good) // 2, len(good) - 1):
        file.write_bytes(good[:size])
        async with open_session(settings) as session:
            with pytest.raises(StoreCorruptError):
                await restore(session, file, replace=True)
    await assert_filled(settings)
    with pytest.raises(NotFoundError):
        verify(tmp_path / "absent")


async def test_a_rotation_waits_for_a_backup_and_a_backup_for_a_rotation(place: Place, tmp_path: Path) -> None:
    settings = place("home", "sqlite")
    await fill(settings)
    with rotating(settings.home):
        async with open_session(settings) as session:
            with pytest.raises(RefusedError, match="rotation"):
                await backup(session, tmp_path / "store.backup")
    assert not (tmp_path / "store.backup").exists()


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from skyspan.app import backup as use
from skyspan.app.session import open_session
from skyspan.app.settings import read_settings
from skyspan.store import paging, portable

at, seen = int(sys.argv[4]), 0
def counting(function):
    def call(*arguments):
        global seen
        seen += 1
        if seen == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)
    return call

# Both go through these: a backup once for each value, a restore once for each value and each migration.
portable._portable = counting(portable._portable)
portable._restored = counting(portable._restored)
portable.migrate = counting(portable.migrate)
portable._leap = counting(portable._leap)

async def main():
    async with open_session(read_settings(sys.argv[1])) as session:
        if sys.argv[3] == "backup":
            await use.backup(session, Path(sys.argv[2]))
        else:
            await use.restore(session, Path(sys.argv[2]), replace=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("kind", DATABASES)
async def test_a_restore_killed_at_any_moment_leaves_what_was_there_or_all_of_the_backup(
    place: Place, tmp_path: Path, kind: str
) -> None:
    settings = place("home", kind)
    await fill(settings)
    file = tmp_path / "store.backup"
    async with open_session(settings) as session:
        await backup(session, file)
    env = {**os.environ, "SKYSPAN_STORE": settings.store}
    killed = 0
    for at in (1, 2, 5, 50, 150, 200, 250):
        command = [sys.executable, "-c", KILLED, str(settings.home), str(file), "restore", str(at)]
        done = await asyncio.to_thread(subprocess.run, command, env=env, capture_output=True, text=True)
        killed += done.returncode == -signal.SIGKILL
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        await assert_filled(settings)
    assert killed > 3


async def test_a_backup_killed_at_any_moment_leaves_the_older_file(place: Place, tmp_path: Path) -> None:
    settings = place("home", "sqlite")
    await fill(settings)
    file = tmp_path / "store.backup"
    async with open_session(settings) as session:
        await backup(session, file)
    before = file.read_bytes()
    for at in (1, 30, 100, 200):
        command = [sys.executable, "-c", KILLED, str(settings.home), str(file), "backup", str(at)]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert file.read_bytes() == before
    verify(file)
