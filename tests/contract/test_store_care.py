"""The care of a store on SQLite and on PostgreSQL: audit, history, the look through everything, moving it elsewhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.postgres import PostgresServer

from skyspan.contracts.store import Batch, DeploymentRecord, Lease, RunRecord, Store
from skyspan.contracts.upkeep import Access, Portion, Retention, Upkeep
from skyspan.model.address import DeploymentAddress
from skyspan.model.error import (
    FencedError,
    RefusedError,
    StoreCorruptError,
    StoreError,
    StoreUnavailableError,
    UsageError,
)
from skyspan.model.event import CancelRequested, Event, RunEnded, RunStarted, StageStarted
from skyspan.model.lifecycle import RunStatus, Verb
from skyspan.model.secret import Secret
from skyspan.secrets.rotation import Rotation
from skyspan.secrets.sealing import EnvelopeSealer
from skyspan.store import schema
from skyspan.store.database import Database
from skyspan.store.sql import SqlStore, SystemClock, flavour_for, open_store
from skyspan.store.tables import HEAD, TABLES
from skyspan.store.worker import Worker
from skyspan.testing.conformance.store_world import (
    EVERY_EVENT,
    HYBRID,
    NOW,
    batch,
    cloud_record,
    lease_of,
    line,
    started,
)

DATABASES = ("sqlite", "postgresql")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as running:
        yield running


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """An empty store of the given kind."""
    made: list[str] = []

    def make(kind: str) -> str:
        made.append(kind)
        if kind == "sqlite":
            return str(tmp_path / f"store{len(made)}" / "skyspan.db")
        server: PostgresServer = request.getfixturevalue("server")
        return server.database()

    yield make
    if "postgresql" in made:
        request.getfixturevalue("server").reclaim()


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, place: Callable[[str], str]) -> str:
    return place(request.param)


@pytest.fixture
async def store(url: str, home: Path) -> AsyncIterator[SqlStore]:
    store = open_store(url, EnvelopeSealer(home))
    yield store
    await store.close()


def query(url: str, sql: str) -> list[tuple[Any, ...]]:
    connection = flavour_for(url).connect()
    try:
        result = connection.exec_driver_sql(sql)
        return [tuple(row) for row in result] if result.returns_rows else []
    finally:
        connection.close()


async def filled(store: Store) -> Lease:
    """A store with something in every table."""
    lease = await started(store)
    await store.append("run-0001", lease, replace(batch(*EVERY_EVENT), put=(cloud_record(),)))
    await store.append_log([line(f"line {number} ☃") for number in range(30)])
    await store.kept(HYBRID.stage("cloud"), lease.epoch).put("state", bytes(range(256)))
    await store.put_secret("default", "token", Secret("s3cret"))
    await store.put_connection("default", "lab", "uses: wireguard")
    await store.request_cancel("run-0001", "bob")
    return lease


async def run_of(store: Store, lease: Lease, number: int, verb: Verb = Verb.UP, *, ends: bool = True) -> str:
    run_id = f"run-{number:04}"
    await store.begin_run(RunRecord(run_id, HYBRID, verb, started_at=NOW + number), lease)
    told: list[Event] = [RunStarted(verb, ()), *([RunEnded(RunStatus.SUCCEEDED)] if ends else [])]
    await store.append(run_id, lease, Batch(tuple((NOW + number, event) for event in told)))
    return run_id


class TestAudit:
    async def test_accesses_come_newest_first_for_a_workspace_or_one_deployment(self, store: SqlStore) -> None:
        upkeep = store.upkeep()
        for number, deployment in enumerate(("a", "b", "")):
            await upkeep.note_access(Access("w", NOW + number, "ann@desk", "outputs revealed", deployment, f"{number}"))
        await upkeep.note_access(Access("other", NOW, "bob@desk", "store restored"))
        assert [item.detail for item in await upkeep.accesses("w")] == ["2", "1", "0"]
        assert [item.detail for item in await upkeep.accesses("w", "b")] == ["1"]
        assert len(await upkeep.accesses("w", limit=2)) == 2

    async def test_what_was_told_of_a_deployment_outlives_it(self, store: SqlStore) -> None:
        await store.save_deployment(DeploymentRecord(HYBRID))
        await store.upkeep().note_access(Access("default", NOW, "ann", "outputs revealed", "hybrid"))
        await store.forget_deployment(HYBRID)
        assert len(await store.upkeep().accesses("default", "hybrid")) == 1


class TestHistory:
    async def runs(self, store: Store) -> list[str]:
        return [run.id for run in await store.runs(HYBRID, 100)]

    async def test_the_newest_stay_and_what_they_need(self, store: SqlStore) -> None:
        lease = await filled(store)
        for number in range(2, 12):
            await run_of(store, lease, number)
        pruned = await store.upkeep().prune(HYBRID, Retention(keep_runs=3))
        assert (pruned.runs, pruned.events) == (8, len(EVERY_EVENT) + 14)
        assert await self.runs(store) == ["run-0011", "run-0010", "run-0009"]
        assert list(await store.events("run-0001")) == []
        assert list(await store.log("run-0001")) == []
        assert list(await store.stage_records(HYBRID)) == [cloud_record()]
        assert await store.kept(HYBRID.stage("cloud"), 0).get("state") == bytes(range(256))
        assert await store.upkeep().prune(HYBRID, Retention(keep_runs=3)) == replace(pruned, runs=0, events=0)
        assert (await store.upkeep().survey()).flaws == ()

    async def test_old_ones_go_by_their_age(self, store: SqlStore) -> None:
        lease = await filled(store)
        for number in range(2, 8):
            await run_of(store, lease, number)
        await store.upkeep().prune(HYBRID, Retention(before=NOW + 5))
        assert await self.runs(store) == ["run-0007", "run-0006", "run-0005"]

    async def test_the_newest_that_changed_something_and_unfinished_ones_never_go(self, store: SqlStore) -> None:
        lease = await filled(store)
        unfinished = await run_of(store, lease, 2, ends=False)
        writing = await run_of(store, lease, 3)
        newest = ""
        for number in range(4, 9):
            newest = await run_of(store, lease, number, Verb.PLAN)
        await store.upkeep().prune(HYBRID, Retention(keep_runs=1, before=NOW + 100))
        assert await self.runs(store) == [newest, writing, unfinished]


class TestSurvey:
    async def test_a_whole_store_has_no_flaws(self, store: SqlStore) -> None:
        lease = await filled(store)
        await run_of(store, lease, 2)
        seen = await store.upkeep().survey()
        assert seen.flaws == ()
        assert (seen.runs, seen.events) == (2, len(EVERY_EVENT) + 2)
        assert seen.sealed == 9

    @pytest.mark.parametrize(
        ("change", "what", "told"),
        [
            ("DELETE FROM events WHERE seq = 4", "event sequence", "12 events numbered 1 to 13, 13 were written"),
            ("DELETE FROM events WHERE seq = 13", "event sequence", "12 events numbered 1 to 12"),
            ("DELETE FROM log_chunks", "log", "ends at line 0, 30 were written"),
            ("UPDATE stage_runs SET status = 'failed' WHERE name = 'cloud'", "projection", "succeeded"),
            ("UPDATE stage_runs SET attempt = 9 WHERE name = 'cloud'", "projection", "attempt is 9, its events say 2"),
            ("DELETE FROM stage_runs WHERE name = 'link'", "projection", "is missing"),
            ("UPDATE runs SET status = 'succeeded'", "projection", "cancelled"),
            ("UPDATE deployments SET status = 'deployed'", "projection", "left it failed"),
            ("UPDATE deployments SET status = 'odd'", "deployment", "odd"),
            ("UPDATE events SET payload = '{' WHERE seq = 3", "event", "cannot be read back"),
            ("UPDATE secrets SET name = 'moved'", "sealed value", "damaged or was moved"),
            ("UPDATE stages SET spec_sealed = hosts_sealed", "sealed value", "damaged or was moved"),
        ],
    )
    async def test_what_somebody_changed_behind_its_back_is_found(
        self, url: str, store: SqlStore, change: str, what: str, told: str
    ) -> None:
        await filled(store)
        query(url, change)
        flaws = (await store.upkeep().survey()).flaws
        assert {flaw.what for flaw in flaws} == {what}
        assert told in flaws[0].found
        assert flaws[0].hint
        assert flaws[0].where

    async def test_a_row_without_its_parent_is_found(self, home: Path, place: Callable[[str], str]) -> None:
        url = place("sqlite")
        store = open_store(url, EnvelopeSealer(home))
        await filled(store)
        connection = flavour_for(url).connect()
        connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
        connection.exec_driver_sql("DELETE FROM runs")
        connection.close()
        flaws = (await store.upkeep().survey()).flaws
        assert {flaw.what for flaw in flaws} == {"foreign key"}
        await store.close()


async def dumped(upkeep: Upkeep) -> list[Any]:
    """A dump as it is after being written to a file."""
    records: list[Any] = []

    def begin() -> Callable[[Any], None]:
        records.clear()
        return records.append

    await upkeep.dump(begin)
    return [json.loads(json.dumps(record)) for record in records]


def rows(records: list[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    mine: list[Any] = []
    for record in records[1:]:
        if isinstance(record, dict):
            mine = found[record["table"]] = []
        else:
            mine.append(record)
    return found


class TestMoving:
    @pytest.mark.parametrize("kind", DATABASES)
    async def test_a_dump_fills_any_database_with_the_same_rows(
        self, store: SqlStore, home: Path, place: Callable[[str], str], kind: str
    ) -> None:
        lease = await filled(store)
        await store.upkeep().note_access(Access("default", NOW, "ann", "backup taken"))
        records = await dumped(store.upkeep())
        assert {table for table, items in rows(records).items() if items} == set(TABLES.tables) - {"alembic_version"}
        other = open_store(place(kind), EnvelopeSealer(home))
        count = await other.upkeep().load(lambda: records, replace=False, now=NOW + 60)
        assert count == sum(len(items) for items in rows(records).values())
        again = rows(await dumped(other.upkeep()))
        before = rows(records)
        for leases in (before.pop("leases"), again.pop("leases")):
            assert len(leases) == 1
        assert again == before
        assert (await other.upkeep().survey()).flaws == ()
        assert [item.event for item in await other.events("run-0001")] == list(EVERY_EVENT)
        assert await other.secret("default", "token") == Secret("s3cret")
        # Whoever held it when the dump was made can never write again.
        with pytest.raises(FencedError):
            await other.append("run-0001", lease, batch(CancelRequested()))
        assert (await other.acquire(lease_of("bob"), NOW + 60)).epoch > lease.epoch + 100
        await other.close()

    async def test_epochs_never_go_back_when_an_old_dump_replaces_a_newer_store(self, store: SqlStore) -> None:
        await filled(store)
        records = await dumped(store.upkeep())
        newest = await store.acquire(lease_of("ann"), NOW + 500)
        for number in range(1500):
            newest = await store.acquire(lease_of("ann"), NOW + 1000 * (number + 1))
            await store.release(newest)
        await store.upkeep().load(lambda: records, replace=True, now=NOW + 10**9)
        assert (await store.acquire(lease_of("bob"), NOW + 10**9)).epoch > newest.epoch

    async def test_a_store_that_holds_something_is_replaced_only_when_told_to(self, store: SqlStore) -> None:
        await filled(store)
        records = await dumped(store.upkeep())
        await store.put_secret("default", "later", Secret("x"))
        with pytest.raises(UsageError, match="not empty"):
            await store.upkeep().load(lambda: records, replace=False, now=NOW + 60)
        with pytest.raises(RefusedError, match="ann holds"):
            await store.upkeep().load(lambda: records, replace=True, now=NOW)
        assert list(await store.secret_names("default")) == ["later", "token"]
        await store.upkeep().load(lambda: records, replace=True, now=NOW + 60)
        assert list(await store.secret_names("default")) == ["token"]

    @pytest.mark.parametrize("cut", [0, 1, 5, 12])
    async def test_a_load_that_fails_half_way_changes_nothing(self, store: SqlStore, cut: int) -> None:
        await filled(store)
        records = await dumped(store.upkeep())
        before = rows(records)

        def broken() -> Iterator[Any]:
            yield from records[:cut]
            raise StoreCorruptError("the file ends here")

        with pytest.raises(StoreError):
            await store.upkeep().load(broken, replace=True, now=NOW + 60)
        assert rows(await dumped(store.upkeep())) == before

    async def test_a_dump_of_a_newer_skyspan_is_refused(self, store: SqlStore) -> None:
        with pytest.raises(StoreUnavailableError, match="newer"):
            await store.upkeep().load(lambda: [{"revision": "9999"}], replace=False, now=NOW)

    async def test_a_dump_of_the_first_revision_is_migrated(
        self, store: SqlStore, home: Path, place: Callable[[str], str]
    ) -> None:
        await filled(store)
        records = await dumped(store.upkeep())
        keep, old = True, [{"revision": "0001"}]
        for record in records[1:]:
            keep = record["table"] not in ("audit", "connections") if isinstance(record, dict) else keep
            old += [record] if keep else []
        other = open_store(place("sqlite"), EnvelopeSealer(home))
        await other.upkeep().load(lambda: old, replace=False, now=NOW + 60)
        assert (await other.upkeep().survey()).flaws == ()
        await other.upkeep().note_access(Access("default", NOW, "ann", "looked"))
        await other.close()

    async def test_a_dump_is_of_one_moment_whatever_is_written_meanwhile(self, store: SqlStore) -> None:
        lease = await filled(store)
        going = True

        async def write() -> int:
            number = 0
            while going:
                number += 1
                await store.append("run-0001", lease, batch(StageStarted("cloud", number)))
                await store.append_log([line("x")])
            return number

        writer = asyncio.create_task(write())
        for _ in range(10):
            found = rows(await dumped(store.upkeep()))
            columns = [column.name for column in TABLES.tables["runs"].c]
            run = dict(zip(columns, found["runs"][0], strict=True))
            assert run["event_seq"] == len(found["events"])
            assert run["log_seq"] == max((item[1] for item in found["log_chunks"]), default=0)
        going = False
        assert await writer > 0

    async def test_a_deployment_moves_with_what_its_stages_keep(
        self, store: SqlStore, tmp_path: Path, place: Callable[[str], str]
    ) -> None:
        await filled(store)
        portion = await store.upkeep().take_out(HYBRID)
        assert portion is not None
        assert portion.kept == {"cloud": {"state": bytes(range(256))}}
        other = open_store(place("sqlite"), EnvelopeSealer(tmp_path / "elsewhere"))
        lease = await other.acquire(lease_of("ann", verb=Verb.CHECK), NOW)
        moved = replace(portion, secrets={"token": Secret("s3cret")}, connections={"lab": "uses: check"})
        await other.upkeep().take_in(moved, lease)
        await other.upkeep().take_in(moved, lease)
        assert await other.upkeep().take_out(HYBRID) is not None
        assert list(await other.stage_records(HYBRID)) == [cloud_record()]
        assert await other.kept(HYBRID.stage("cloud"), 0).get("state") == bytes(range(256))
        assert await other.secret("default", "token") == Secret("s3cret")
        assert [item.text for item in await other.connections("default")] == ["uses: check"]
        stale = replace(lease, epoch=lease.epoch - 1)
        with pytest.raises(FencedError):
            await other.upkeep().take_in(Portion(portion.deployment), stale)
        assert await other.upkeep().take_out(DeploymentAddress("default", "nothing")) is None
        await other.close()


class TestResealing:
    async def test_a_rotation_under_load_leaves_nothing_under_the_old_key(
        self, url: str, store: SqlStore, home: Path
    ) -> None:
        """Writers in other stores go on all the time; what they wrote before, during and after all opens."""
        lease = await filled(store)
        sealer = EnvelopeSealer(home)
        old = sealer.current("default")
        others = [open_store(url, EnvelopeSealer(home)) for _ in range(3)]
        going = True

        written = [0, 0, 0]

        async def write(who: int) -> None:
            while going:
                number = written[who] + 1
                await others[who].put_secret("default", f"s{who}-{number % 40}", Secret(f"{who}:{number}"))
                kept = others[who].kept(HYBRID.stage(f"stage{who}"), lease.epoch)
                await kept.put("state", f"{who}:{number}".encode())
                written[who] = number

        async def all_write_once_more() -> None:
            """Which of them gets the database's lock is chance; it may be one of them for a while."""
            before = tuple(written)
            while not all(now > then for now, then in zip(written, before, strict=True)):
                await asyncio.sleep(0.01)

        writers = [asyncio.create_task(write(who)) for who in range(3)]
        upkeep = store.upkeep()
        rotation, current = Rotation(home, None), old
        for _ in range(3):
            await asyncio.wait_for(all_write_once_more(), 30)
            rotation.begin_data("default")
            await upkeep.settle()
            current = sealer.current("default")
            while await upkeep.reseal("default", current, 20):
                pass
            rotation.finish_data("default")
        await asyncio.wait_for(all_write_once_more(), 30)
        going = False
        await asyncio.gather(*writers)
        seen = await upkeep.survey()
        assert seen.flaws == ()
        for table, column in (("secrets", "value_sealed"), ("kept", "data_sealed"), ("stages", "spec_sealed")):
            found = [bytes(value) for (value,) in query(url, f"SELECT {column} FROM {table}")]
            assert found
            assert all(value.startswith(current) and not value.startswith(old) for value in found)
        for who, number in enumerate(written):
            assert await store.secret("default", f"s{who}-{number % 40}") == Secret(f"{who}:{number}")
        for other in others:
            await other.close()

    async def test_other_workspaces_are_left_alone(self, store: SqlStore, home: Path) -> None:
        await store.put_secret("one", "a", Secret("x"))
        await store.put_secret("two", "a", Secret("y"))
        before = EnvelopeSealer(home).current("two")
        Rotation(home, None).begin_data("one")
        current = EnvelopeSealer(home).current("one")
        assert await store.upkeep().reseal("one", current, 10) == 1
        assert await store.upkeep().reseal("one", current, 10) == 0
        assert EnvelopeSealer(home).current("two") == before
        assert await store.secret("two", "a") == Secret("y")

    async def test_settling_waits_for_an_open_transaction_and_says_so_when_it_does_not_end(
        self, url: str, store: SqlStore, home: Path
    ) -> None:
        await store.put_secret("default", "a", Secret("x"))
        connection = flavour_for(url).connect()
        flavour_for(url).begin(connection, writes=True)
        impatient = SqlStore(
            Worker(Database(flavour_for(url), EnvelopeSealer(home), SystemClock())),
            lambda: Database(flavour_for(url, patience_s=0.2), EnvelopeSealer(home), SystemClock()),
        )
        with pytest.raises(StoreUnavailableError) as caught:
            await impatient.upkeep().settle()
        assert caught.value.hint
        connection.exec_driver_sql("ROLLBACK")
        connection.close()
        await impatient.upkeep().settle()
        await impatient.close()

    async def test_what_was_removed_is_not_readable_in_free_space(
        self, home: Path, place: Callable[[str], str]
    ) -> None:
        url = place("sqlite")
        store = open_store(url, EnvelopeSealer(home))
        await started(store)
        await store.append_log([line("find-me-" + "x" * 500)] * 200)
        await store.forget_deployment(HYBRID)
        await store.upkeep().compact()
        files = list(Path(url).parent.iterdir())
        assert not [file for file in files if b"find-me-" in file.read_bytes()]
        await store.close()


async def test_a_store_of_the_first_revision_gets_the_new_tables_and_keeps_its_rows(
    url: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flavour = flavour_for(url)
    connection = flavour.connect()
    flavour.begin(connection, writes=True, exclusive=True)
    schema.migrate(connection, "0001")
    connection.exec_driver_sql(
        "INSERT INTO deployments VALUES ('default', 'old', 'deployed', 'healthy', '/srv', '', 1.0, 2.0)"
    )
    connection.exec_driver_sql("COMMIT")
    connection.close()
    store = open_store(url, EnvelopeSealer(home))
    assert [record.address.name for record in await store.deployments("default")] == ["old"]
    await store.upkeep().note_access(Access("default", NOW, "ann", "looked"))
    assert len(await store.upkeep().accesses("default")) == 1
    assert await store.put_connection("default", "lab", "uses: check")
    assert [item.name for item in await store.connections("default")] == ["lab"]
    await store.close()
    assert query(url, "SELECT version_num FROM alembic_version") == [(HEAD,)]
