"""The same trouble for SQLite and PostgreSQL: restarts, locks, lost connections, a full disk at every write.

What was answered counts exactly once, what failed counts at most once, and there is never a gap.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import pwd
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.support.postgres import PostgresServer

from skyspan.contracts.store import Batch, Lease, Store
from skyspan.model.error import StoreError, StoreUnavailableError
from skyspan.model.event import CancelRequested, StageStarted
from skyspan.secrets.sealing import EnvelopeSealer
from skyspan.store.database import Database
from skyspan.store.sql import SqlStore, SystemClock, flavour_for, open_store
from skyspan.store.worker import Worker
from skyspan.testing.conformance.store_world import HYBRID, batch, cloud_record, started

pytestmark = pytest.mark.chaos

DATABASES = ("sqlite", "postgresql")
RESTARTS = 5


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as running:
        yield running


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield str(tmp_path / "store" / "skyspan.db")
        return
    server: PostgresServer = request.getfixturevalue("server")
    yield server.database()
    server.reclaim()


def store_at(url: str, home: Path, patience_s: float = 10.0) -> SqlStore:
    return SqlStore(Worker(Database(flavour_for(url, patience_s=patience_s), EnvelopeSealer(home), SystemClock())))


class Appender:
    """Appends one event after another whatever happens, and knows which were answered."""

    def __init__(self, store: Store, lease: Lease) -> None:
        self._store, self._lease = store, lease
        self.answered: list[int] = []
        self.failed: list[int] = []
        self.going = True

    async def run(self) -> None:
        number = 0
        while self.going:
            number += 1
            try:
                await self._store.append("run-0001", self._lease, batch(StageStarted("cloud", number)))
                self.answered.append(number)
            except StoreUnavailableError as problem:
                assert problem.hint
                self.failed.append(number)
                await asyncio.sleep(0.005)

    async def check(self, store: Store) -> None:
        """Nothing answered is lost or doubled, nothing failed is doubled, and no number is missing."""
        found = await store.events("run-0001", limit=1_000_000)
        assert [item.seq for item in found] == list(range(1, len(found) + 1))
        numbers = [item.event.attempt for item in found if isinstance(item.event, StageStarted)]
        assert numbers == sorted(set(numbers)), "doubled, or out of order"
        assert set(self.answered) <= set(numbers)
        assert set(numbers) <= {*self.answered, *self.failed}


async def test_a_server_restarted_again_and_again_loses_and_doubles_nothing(server: PostgresServer, home: Path) -> None:
    url = server.database()
    store = open_store(url, EnvelopeSealer(home))
    appender = Appender(store, await started(store))
    writing = asyncio.create_task(appender.run())
    for number in range(RESTARTS):
        before = len(appender.answered)
        async with asyncio.timeout(60):
            while len(appender.answered) < before + 30:
                await asyncio.sleep(0.02)
        await asyncio.to_thread(server.stop, how=(signal.SIGINT, signal.SIGQUIT)[number % 2])
        await asyncio.to_thread(server.start)
    before = len(appender.answered)
    async with asyncio.timeout(60):
        while len(appender.answered) < before + 30:
            await asyncio.sleep(0.02)
    appender.going = False
    await writing
    await appender.check(store)
    assert appender.failed
    await store.close()
    server.reclaim()


async def test_connections_dropped_all_the_time_lose_and_double_nothing(server: PostgresServer, home: Path) -> None:
    url = server.database()
    name = url.split("/")[3].split("?")[0]
    store = open_store(url, EnvelopeSealer(home))
    appender = Appender(store, await started(store))
    writing = asyncio.create_task(appender.run())
    for _ in range(40):
        await asyncio.to_thread(server.disconnect, name)
        await asyncio.sleep(0.02)
    appender.going = False
    await writing
    await appender.check(store)
    assert len(appender.answered) > 40
    await store.close()
    server.reclaim()


ENGINE = """
import asyncio, sys
from pathlib import Path
from skyspan.secrets.sealing import EnvelopeSealer
from skyspan.store.sql import open_store
from skyspan.testing.conformance.store_world import HYBRID, batch, lease_of
from skyspan.model.event import StageStarted

async def work(url, home):
    store = open_store(url, EnvelopeSealer(Path(home)))
    lease = await store.holder(HYBRID)
    after = len(await store.events("run-0001", limit=1_000_000))
    number = after
    while True:
        number += 1
        await store.append("run-0001", lease, batch(StageStarted("cloud", number)))
        print(number, flush=True)

asyncio.run(work(sys.argv[1], sys.argv[2]))
"""


async def test_engines_killed_one_after_another_leave_a_list_without_gap(url: str, home: Path) -> None:
    """What a restart is to a server, SIGKILL is to a file."""
    store = open_store(url, EnvelopeSealer(home))
    await started(store)
    answered = 0
    for _ in range(3):
        command = [sys.executable, "-c", ENGINE, url, str(home)]
        engine = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert engine.stdout is not None
        told = [int(engine.stdout.readline()) for _ in range(30)]
        engine.kill()
        told += [int(text) for text in engine.communicate()[0].splitlines()]
        found = await store.events("run-0001", limit=1_000_000)
        assert [item.seq for item in found] == list(range(1, len(found) + 1))
        assert len(found) in (told[-1], told[-1] + 1)
        answered = told[-1]
    assert answered >= 90
    await store.close()


async def test_rows_that_somebody_keeps_locked_are_told_and_written_when_they_are_free(url: str, home: Path) -> None:
    store = store_at(url, home, patience_s=0.1)
    lease = await started(store)
    flavour = flavour_for(url)
    other = flavour.connect()
    for _ in range(3):
        flavour.begin(other, writes=True)
        other.exec_driver_sql("UPDATE leases SET owner = owner")
        with pytest.raises(StoreUnavailableError, match="locked") as caught:
            await store.append("run-0001", lease, batch(CancelRequested("refused")))
        assert caught.value.hint
        other.exec_driver_sql("ROLLBACK")
        await store.append("run-0001", lease, batch(CancelRequested("written")))
    other.close()
    found = [item.event for item in await store.events("run-0001")]
    assert found == [CancelRequested("written")] * 3
    await store.close()


async def test_locks_that_come_and_go_are_waited_for(url: str, home: Path) -> None:
    store = open_store(url, EnvelopeSealer(home))
    appender = Appender(store, await started(store))
    writing = asyncio.create_task(appender.run())
    flavour = flavour_for(url)
    other = flavour.connect()
    for _ in range(10):
        await asyncio.to_thread(flavour.begin, other, writes=True)
        await asyncio.to_thread(other.exec_driver_sql, "UPDATE leases SET owner = owner")
        await asyncio.sleep(0.05)
        other.exec_driver_sql("ROLLBACK")
        await asyncio.sleep(0.01)
    other.close()
    appender.going = False
    await writing
    assert appender.failed == []
    await appender.check(store)
    await store.close()


class SmallDisk:
    """A file system of its own, mounted for one test, that can be filled to the last page."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder, self._megabytes = folder, megabytes
        self._libc = ctypes.CDLL(None, use_errno=True)

    def mount(self) -> None:
        options = f"size={self._megabytes}m,mode=700".encode()
        if self._libc.mount(b"tmpfs", bytes(self.folder), b"tmpfs", 0, options) != 0:
            raise OSError(ctypes.get_errno(), "cannot mount a small disk; this test needs root", str(self.folder))

    def unmount(self) -> None:
        self._libc.umount2(bytes(self.folder), 2)

    def fill(self, leave: int) -> None:
        """Leave so many bytes free."""
        ballast = self.folder / "ballast"
        with suppress(FileNotFoundError):
            ballast.unlink()
        free = os.statvfs(self.folder)
        size = free.f_bavail * free.f_frsize - leave
        with ballast.open("wb", buffering=0) as file:
            if size > 0:
                os.posix_fallocate(file.fileno(), 0, size)

    def relieve(self) -> None:
        with suppress(FileNotFoundError):
            (self.folder / "ballast").unlink()


async def worked(store: Store, lease: Lease, done: Callable[[int], None]) -> None:
    """Writes of every size, one after another; `done` is told each that was answered."""
    for number in range(8):
        stages = tuple((1.0, StageStarted("x" * 3000, number)) for _ in range(1 + number))
        await store.append("run-0001", lease, Batch(stages, put=(cloud_record(),)))
        await store.kept(HYBRID.stage("cloud"), lease.epoch).put("state", bytes(1000 * number))
        done(number)


@pytest.mark.integration
async def test_a_disk_full_at_every_page_of_sqlite_loses_and_doubles_nothing(tmp_path: Path, home: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    disk = SmallDisk(folder, 4)
    disk.mount()
    refused = 0
    try:
        for pages in range(0, 120, 3):
            store = open_store(folder / f"{pages}.db", EnvelopeSealer(home))
            lease = await started(store)
            answered: list[int] = []
            disk.fill(leave=pages * 4096)
            try:
                await worked(store, lease, answered.append)
            except StoreUnavailableError as problem:
                refused += 1
                assert "space" in problem.hint
            await check_whole(store, answered)
            disk.relieve()
            # Once there is room again, the same handle goes on.
            await worked(store, lease, lambda _: None)
            await check_whole(store, [*answered, *range(8)])
            await store.close()
            for file in folder.iterdir():
                file.unlink()
    finally:
        disk.unmount()
    assert refused > 20


@pytest.mark.integration
async def test_a_disk_full_at_every_write_of_postgresql_loses_and_doubles_nothing(
    server: PostgresServer, home: Path
) -> None:
    folder = Path(tempfile.mkdtemp(prefix="skyspan-small-"))
    disk = SmallDisk(folder, 24)
    disk.mount()
    refused = 0
    try:
        give_to_the_server(folder)
        server.execute("postgres", f"CREATE TABLESPACE small LOCATION '{folder / 'space'}'")
        server.execute("postgres", "CREATE DATABASE small TABLESPACE small")
        url = server.database().replace("/d", "/small?", 1)
        url = url.partition("?")[0] + "?host=" + url.rpartition("host=")[2]
        store = open_store(url, EnvelopeSealer(home))
        lease = await started(store)
        expected: list[int] = []
        for pages in range(0, 60, 3):
            disk.fill(leave=pages * 4096)
            try:
                await worked(store, lease, expected.append)
            except StoreUnavailableError as problem:
                refused += 1
                assert "ran out of disk" in problem.summary
            disk.relieve()
            await check_whole(store, expected)
        await worked(store, lease, expected.append)
        await check_whole(store, expected)
        await store.close()
        server.disconnect("small")
        server.execute("postgres", "DROP DATABASE small")
        server.execute("postgres", "DROP TABLESPACE small")
    finally:
        disk.unmount()
        shutil.rmtree(folder, ignore_errors=True)
        server.reclaim()
    assert refused > 3


def give_to_the_server(folder: Path) -> None:
    """The server runs as somebody else when this test runs as root."""
    space = folder / "space"
    space.mkdir(mode=0o700)
    if os.geteuid() == 0:
        names = {entry.pw_name: entry for entry in pwd.getpwall()}
        entry = names.get("postgres") or names["nobody"]
        os.chown(folder, entry.pw_uid, entry.pw_gid)
        os.chown(space, entry.pw_uid, entry.pw_gid)


async def check_whole(store: Store, answered: list[int]) -> None:
    """Every batch is there as a whole or not at all, and those that were answered are."""
    found = await store.events("run-0001", limit=1_000_000)
    assert [item.seq for item in found] == list(range(1, len(found) + 1))
    attempts = [item.event.attempt for item in found if isinstance(item.event, StageStarted)]
    for number in set(attempts):
        whole, part = divmod(attempts.count(number), 1 + number)
        assert part == 0, f"half a batch {number}"
        assert whole >= answered.count(number)
    assert list(await store.stage_records(HYBRID)) in ([], [cloud_record()])


def test_a_locked_sqlite_file_never_shows_as_anything_but_our_error(tmp_path: Path, home: Path) -> None:
    """Also while the tables are made, which is when two first commands meet."""
    path = tmp_path / "skyspan.db"
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("PRAGMA journal_mode=WAL")
    raw.execute("BEGIN IMMEDIATE")

    async def use() -> None:
        store = store_at(str(path), home, patience_s=0.05)
        with pytest.raises(StoreError, match="locked"):
            await store.secret_names("w")
        raw.execute("ROLLBACK")
        assert await store.secret_names("w") == []
        await store.close()

    asyncio.run(use())
    raw.close()
