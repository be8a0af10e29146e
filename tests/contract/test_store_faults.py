"""What the SQLite store does when the disk, the file or another process makes trouble."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import random
import sqlite3
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from skyspan.contracts.store import Batch, Store
from skyspan.model.error import StoreCorruptError, StoreUnavailableError, UsageError
from skyspan.model.event import CancelRequested, StageStarted
from skyspan.model.secret import Secret
from skyspan.secrets.sealing import EnvelopeSealer
from skyspan.store.database import Database
from skyspan.store.sql import SqlStore, SystemClock, flavour_for, open_store
from skyspan.store.worker import Worker
from skyspan.testing.conformance.store_world import HYBRID, batch, cloud_record, line, started

ROOT = os.geteuid() == 0
READ_ONLY, REMOUNT = 1, 32


@pytest.fixture(scope="module")
def sealer(tmp_path_factory: pytest.TempPathFactory) -> EnvelopeSealer:
    return EnvelopeSealer(tmp_path_factory.mktemp("home"))


class SmallDisk:
    """A file system of its own: 4 MB, mounted for one test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._libc = ctypes.CDLL(None, use_errno=True)

    def mount(self, flags: int = 0) -> None:
        if self._libc.mount(b"tmpfs", bytes(self.folder), b"tmpfs", flags, b"size=4m,mode=700") != 0:
            raise OSError(ctypes.get_errno(), "cannot mount a small disk; this test needs root", str(self.folder))

    def unmount(self) -> None:
        self._libc.umount2(bytes(self.folder), 2)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    disk = SmallDisk(folder)
    disk.mount()
    yield disk
    disk.unmount()


def impatient(path: Path, sealer: EnvelopeSealer) -> Store:
    """A store that waits for nobody."""
    return SqlStore(Worker(Database(flavour_for(path, patience_s=0.05), sealer, SystemClock())))


async def fails(store: Store, kind: type[StoreUnavailableError | StoreCorruptError], *parts: str) -> None:
    """Opening it fails as `kind`, with what to do, and without anything of the libraries underneath."""
    with pytest.raises(kind) as caught:
        await store.secret_names("w")
    for part in parts:
        assert part in caught.value.summary
    assert caught.value.hint
    assert "sqlalche" not in str(caught.value)
    await store.close()


@pytest.mark.integration
async def test_a_full_disk_refuses_writes_and_keeps_what_was_answered(disk: SmallDisk, sealer: EnvelopeSealer) -> None:
    path = disk.folder / "skyspan.db"
    store = open_store(path, sealer)
    lease = await started(store)
    answered = 0
    with pytest.raises(StoreUnavailableError, match=r"no space is left|is full") as caught:
        for place in range(10_000):
            await store.append("run-0001", lease, batch(StageStarted("x" * 4000, place)))
            answered += 1
    assert str(path) in caught.value.summary
    assert "Free some space" in caught.value.hint or "free space" in caught.value.hint
    assert answered > 100
    assert [item.seq for item in await store.events("run-0001", limit=10_000)] == list(range(1, answered + 1))
    await store.close()
    again = open_store(path, sealer)
    assert len(await again.events("run-0001", limit=10_000)) == answered
    await again.close()


@pytest.mark.integration
async def test_a_disk_that_has_room_again_is_written_again(disk: SmallDisk, sealer: EnvelopeSealer) -> None:
    store = open_store(disk.folder / "skyspan.db", sealer)
    lease = await started(store)
    ballast = disk.folder / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"0" * 4096):
            pass
    with pytest.raises(StoreUnavailableError):
        await store.append(
            "run-0001", lease, Batch(events=batch(StageStarted("x" * 90_000, 1)).events, put=(cloud_record(),))
        )
    ballast.unlink()
    await store.append("run-0001", lease, batch(CancelRequested()))
    assert [item.event for item in await store.events("run-0001")] == [CancelRequested()]
    assert list(await store.stage_records(HYBRID)) == []
    await store.close()


@pytest.mark.integration
async def test_a_read_only_disk_says_so(disk: SmallDisk, sealer: EnvelopeSealer) -> None:
    disk.mount(READ_ONLY | REMOUNT)
    await fails(
        open_store(disk.folder / "home" / "skyspan.db", sealer), StoreUnavailableError, str(disk.folder), "Read-only"
    )


@pytest.mark.integration
async def test_a_store_whose_disk_became_read_only_says_so(disk: SmallDisk, sealer: EnvelopeSealer) -> None:
    path = disk.folder / "skyspan.db"
    store = open_store(path, sealer)
    await store.put_secret("w", "a", Secret("x"))
    await store.close()
    disk.mount(READ_ONLY | REMOUNT)
    store = open_store(path, sealer)
    with pytest.raises(StoreUnavailableError) as caught:
        await store.put_secret("w", "b", Secret("x"))
    assert str(path) in caught.value.summary
    assert caught.value.hint
    await store.close()


async def test_a_folder_without_permission_says_so(tmp_path: Path, sealer: EnvelopeSealer) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o500)
    if ROOT:  # whom modes do not stop: a file where the folder should be stands for it
        home.rmdir()
        home.write_text("in the way")
    await fails(open_store(home / "deep" / "skyspan.db", sealer), StoreUnavailableError, str(home))


async def test_the_file_is_for_its_owner_alone(tmp_path: Path, sealer: EnvelopeSealer) -> None:
    path = tmp_path / "home" / "skyspan.db"
    old = os.umask(0)
    try:
        store = open_store(path, sealer)
        await store.put_secret("w", "a", Secret("x"))
    finally:
        os.umask(old)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {"skyspan.db": 0o600, "skyspan.db-wal": 0o600, "skyspan.db-shm": 0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    await store.close()
    path.chmod(0o644)
    store = open_store(path, sealer)
    await store.secret_names("w")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    await store.close()


async def test_the_file_is_set_up_to_survive_a_power_cut(tmp_path: Path) -> None:
    connection = flavour_for(tmp_path / "skyspan.db").connect()
    pragmas = {
        name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
        for name in ("journal_mode", "synchronous", "foreign_keys")
    }
    connection.close()
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


@pytest.mark.parametrize("size", [1, 100, 4096, 100_000])
async def test_a_file_of_random_bytes_is_reported_and_left_alone(
    tmp_path: Path, sealer: EnvelopeSealer, size: int
) -> None:
    path = tmp_path / "skyspan.db"
    noise = random.Random(size).randbytes(size)
    path.write_bytes(noise)
    await fails(open_store(path, sealer), StoreCorruptError, str(path))
    assert path.read_bytes() == noise


async def filled(path: Path, sealer: EnvelopeSealer) -> None:
    store = open_store(path, sealer)
    lease = await started(store)
    await store.append("run-0001", lease, Batch(events=batch(CancelRequested()).events, put=(cloud_record(),)))
    for _ in range(60):
        await store.append_log([line("x" * 100)] * 100)
    await store.close()


async def read_all(store: Store) -> None:
    await store.deployment(HYBRID)
    await store.stage_records(HYBRID)
    await store.events("run-0001")
    await store.log("run-0001", limit=100_000)


@pytest.mark.parametrize("left", [0.02, 0.3, 0.9])
async def test_a_truncated_file_is_reported(tmp_path: Path, sealer: EnvelopeSealer, left: float) -> None:
    path = tmp_path / "skyspan.db"
    await filled(path, sealer)
    os.truncate(path, int(path.stat().st_size * left))
    store = open_store(path, sealer)
    with pytest.raises(StoreCorruptError, match=str(path)) as caught:
        await read_all(store)
    assert "backup" in caught.value.hint
    await store.close()


async def test_overwritten_pages_never_show_as_anything_but_our_errors(tmp_path: Path, sealer: EnvelopeSealer) -> None:
    path = tmp_path / "skyspan.db"
    await filled(path, sealer)
    good = path.read_bytes()
    for seed in range(25):
        chance = random.Random(seed)
        bad = bytearray(good)
        for _ in range(4):
            at = chance.randrange(len(bad) - 512)
            bad[at : at + 512] = chance.randbytes(512)
        path.write_bytes(bad)
        store = open_store(path, sealer)
        try:
            await read_all(store)
        except StoreCorruptError as problem:
            assert problem.hint
        except Exception as problem:
            assert type(problem).__name__ in ("SealError", "StoreUnavailableError"), f"seed {seed}: {problem!r}"
        await store.close()


@pytest.mark.parametrize(
    ("change", "reader"),
    [
        ("UPDATE events SET payload = '{'", "events"),
        ("UPDATE events SET kind = 'from_the_future'", "events"),
        ("UPDATE runs SET status = 'odd'", "run"),
        ("UPDATE deployments SET status = 'odd'", "deployments"),
        ("UPDATE stages SET needs = 'x'", "stage_records"),
        ("UPDATE log_chunks SET lines = '[]'", "log"),
    ],
)
async def test_a_row_that_makes_no_sense_is_reported(
    tmp_path: Path, sealer: EnvelopeSealer, change: str, reader: str
) -> None:
    path = tmp_path / "skyspan.db"
    await filled(path, sealer)
    with sqlite3.connect(path) as raw:
        raw.execute(change)
    raw.close()
    store = open_store(path, sealer)
    argument = {"deployments": "default", "stage_records": HYBRID}.get(reader, "run-0001")
    with pytest.raises(StoreCorruptError, match="cannot be read back") as caught:
        await getattr(store, reader)(argument)
    assert caught.value.hint
    await store.close()


async def test_a_store_locked_for_too_long_says_who_to_look_for(tmp_path: Path, sealer: EnvelopeSealer) -> None:
    path = tmp_path / "skyspan.db"
    store = impatient(path, sealer)
    await store.put_secret("w", "a", Secret("x"))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailableError, match="locked") as caught:
        await asyncio.gather(*(store.put_secret("w", name, Secret("x")) for name in "bc"))
    assert str(path) in caught.value.summary
    assert await store.secret_names("w") == ["a"]
    other.execute("ROLLBACK")
    other.close()
    await store.put_secret("w", "d", Secret("x"))
    await store.close()


@pytest.mark.parametrize(
    "url",
    ["mysql://u:hunter2@h/d", "sqlite://", "postgresql://u:hunter2@h/d?sslmode=odd", "postgresql://u:hunter2@h/d?x=1"],
)
def test_a_url_that_is_not_understood_is_a_usage_error(url: str, sealer: EnvelopeSealer) -> None:
    with pytest.raises(UsageError) as caught:
        open_store(url, sealer)
    assert "hunter2" not in str(caught.value)
    assert caught.value.hint


RACER = """
import asyncio, sys
from pathlib import Path
from skyspan.contracts.store import Lease
from skyspan.model.address import DeploymentAddress
from skyspan.model.error import RefusedError
from skyspan.secrets.sealing import EnvelopeSealer
from skyspan.store.sql import open_store

async def race(path, me):
    store = open_store(path, EnvelopeSealer(Path(path).parent))
    await store.secret_names("w")
    print("ready", flush=True)
    sys.stdin.readline()
    won = []
    for number in range(50):
        try:
            lease = Lease(DeploymentAddress("default", f"d{number}"), me, 0, 2000.0)
            won.append(str((await store.acquire(lease, 1000.0)).epoch and number))
        except RefusedError as refused:
            assert "racer" in refused.summary, refused.summary
    print(",".join(won), flush=True)
    await store.close()

asyncio.run(race(sys.argv[1], sys.argv[2]))
"""


def test_of_two_processes_exactly_one_gets_each_lease(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(RACER), str(tmp_path / "home" / "skyspan.db")]
    racers = [
        subprocess.Popen([*command, f"racer {name}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name in "ab"
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    won = [
        [int(number) for number in racer.communicate(timeout=60)[0].strip().split(",") if number] for racer in racers
    ]
    assert [racer.returncode for racer in racers] == [0, 0]
    assert sorted(won[0] + won[1]) == list(range(50))


WRITER = """
import asyncio, sys
from pathlib import Path
from skyspan.contracts.store import Batch
from skyspan.model.event import StageStarted
from skyspan.secrets.sealing import EnvelopeSealer
from skyspan.store.sql import open_store
from skyspan.testing.conformance.store_world import cloud_record, started

async def write(path):
    store = open_store(path, EnvelopeSealer(Path(path).parent))
    lease = await started(store)
    async def one(number):
        await store.append("run-0001", lease, Batch(((1.0, StageStarted(f"s{number}", 1)),), put=(cloud_record(),)))
        print(number, flush=True)
    for start in range(0, 100_000, 8):
        await asyncio.gather(*(one(number) for number in range(start, start + 8)))

asyncio.run(write(sys.argv[1]))
"""


async def test_what_was_answered_before_a_kill_is_there_and_nothing_is_half_written(tmp_path: Path) -> None:
    path = tmp_path / "home" / "skyspan.db"
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        answered = [int(writer.stdout.readline()) for _ in range(40)]
        writer.kill()
        answered += [int(text) for text in writer.communicate()[0].splitlines()]
        store = open_store(path, EnvelopeSealer(path.parent))
        found = await store.events("run-0001", limit=100_000)
        assert [item.seq for item in found] == list(range(1, len(found) + 1))
        assert {f"s{number}" for number in answered} <= {
            item.event.stage for item in found if isinstance(item.event, StageStarted)
        }
        assert list(await store.stage_records(HYBRID)) == [cloud_record()]
        await store.forget_deployment(HYBRID)
        await store.close()


START = """
import asyncio, sys, time
from skyspan.store.sql import open_store

class Sealer:
    pass

async def use(path):
    store = open_store(path, Sealer())
    await store.secret_names("w")
    await store.close()

asyncio.run(use(sys.argv[1]))
print(*sorted(name for name in sys.modules if name.split(".")[0] in ("alembic", "mako", "pg8000", "greenlet")))
print("sqlalchemy.orm" in sys.modules, "sqlalchemy.dialects.postgresql" in sys.modules)
"""


def test_opening_a_store_loads_neither_alembic_nor_the_other_database(tmp_path: Path) -> None:
    for _ in ("fresh", "again"):
        done = subprocess.run(
            [sys.executable, "-c", START, str(tmp_path / "skyspan.db")], capture_output=True, text=True, check=True
        )
        assert done.stdout.split("\n")[:2] == ["", "False False"]
