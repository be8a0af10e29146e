"""The SQL store under the store's conformance suite and its own, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.postgres import PostgresServer

from skyspan.contracts.store import Batch, DeploymentRecord, Lease, Store
from skyspan.model.address import DeploymentAddress
from skyspan.model.error import FencedError, RefusedError, SealError, StoreCorruptError, StoreUnavailableError
from skyspan.model.event import CancelRequested
from skyspan.model.secret import Secret
from skyspan.secrets.sealing import EnvelopeSealer
from skyspan.store import schema
from skyspan.store.sql import flavour_for, open_store
from skyspan.store.tables import HEAD, TABLES
from skyspan.testing.conformance.store import StoreConformance
from skyspan.testing.conformance.store_world import HYBRID, NOW, batch, cloud_record, lease_of, started

DATABASES = ("sqlite", "postgresql")
CANARY = "canary-7f3a91"


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as running:
        yield running


@pytest.fixture(scope="session")
def sealer(tmp_path_factory: pytest.TempPathFactory) -> EnvelopeSealer:
    return EnvelopeSealer(tmp_path_factory.mktemp("home"))


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield str(tmp_path / "home" / "skyspan.db")
        return
    server: PostgresServer = request.getfixturevalue("server")
    yield server.database()
    server.reclaim()


@pytest.fixture
def opener(url: str, sealer: EnvelopeSealer) -> Callable[[], Store]:
    return lambda: open_store(url, sealer)


def query(url: str, sql: str) -> list[tuple[object, ...]]:
    """Rows as somebody sees them who reads the database without the store."""
    connection = flavour_for(url).connect()
    try:
        result = connection.exec_driver_sql(sql)
        return [tuple(row) for row in result] if result.returns_rows else []
    finally:
        connection.close()


class TestSqlStore(StoreConformance):
    """The whole suite, on both databases."""


class TestSealing:
    """What is sealed, and to what."""

    async def test_planted_secrets_are_nowhere_in_the_database(
        self, url: str, opener: Callable[[], Store], request: pytest.FixtureRequest
    ) -> None:
        store = opener()
        secret = Secret(CANARY)
        await store.save_deployment(
            DeploymentRecord(HYBRID, composition={"with": {"password": CANARY}}, inputs={"token": secret})
        )
        lease = await started(store)
        record = cloud_record()
        outputs = {
            "a": type(record.outputs["password"])(CANARY, sensitive=True),
            "b": type(record.outputs["mixed"])([secret]),
        }
        for spec in ({"plain": CANARY}, {"deep": [secret]}):
            put = type(record)(
                HYBRID.stage("cloud"), "command", spec, hosts={"gw": {"key": secret, "user": CANARY}}, outputs=outputs
            )
            await store.append("run-0001", lease, Batch(put=(put,)))
        await store.kept(HYBRID.stage("cloud"), lease.epoch).put("state", CANARY.encode() * 1000)
        await store.put_secret("default", "token", secret)
        await store.put_connection("default", "lab", f"uses: wireguard\n# {CANARY}")
        if "://" in url:
            assert CANARY.encode() not in dump(url)
        else:
            # While it is open, the WAL is still there.
            files = sorted(Path(url).parent.iterdir())
            assert [file.name for file in files] == ["skyspan.db", "skyspan.db-shm", "skyspan.db-wal"]
            assert not [file for file in files if CANARY.encode() in file.read_bytes()]
        await store.close()
        assert CANARY.encode() not in dump(url)

    @pytest.mark.parametrize(
        ("table", "column", "key"),
        [("secrets", "value_sealed", "name"), ("stages", "spec_sealed", "name"), ("outputs", "value_sealed", "name")],
    )
    async def test_a_sealed_value_moved_to_another_row_does_not_open(
        self, url: str, opener: Callable[[], Store], table: str, column: str, key: str
    ) -> None:
        store = opener()
        lease = await started(store)
        record = cloud_record()
        second = type(record)(
            HYBRID.stage("link"), "wireguard", {"a": 1}, outputs={"other": record.outputs["password"]}
        )
        await store.append("run-0001", lease, Batch(put=(record, second)))
        await store.put_secret("default", "cloud", Secret("1"))
        await store.put_secret("default", "link", Secret("2"))
        names = {"outputs": ("password", "other")}.get(table, ("cloud", "link"))
        source = f"SELECT {column} FROM {table} WHERE {key} = '{names[0]}'"
        query(url, f"UPDATE {table} SET {column} = ({source}) WHERE {key} = '{names[1]}'")
        with pytest.raises(SealError):
            await (store.secret("default", "link") if table == "secrets" else store.stage_records(HYBRID))
        await store.close()

    async def test_outputs_that_are_not_sensitive_are_rows_in_clear(
        self, url: str, opener: Callable[[], Store]
    ) -> None:
        store = opener()
        lease = await started(store)
        await store.append("run-0001", lease, Batch(put=(cloud_record(),)))
        await store.close()
        rows = query(url, "SELECT name, value FROM outputs WHERE value IS NOT NULL ORDER BY position")
        assert rows == [("gateway_ip", '"192.0.2.1"'), ("nothing", "null")]


class TestSchema:
    """How the tables come to be."""

    async def test_migrations_from_the_first_on_make_what_a_fresh_store_has(
        self, url: str, tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        other = request.getfixturevalue("server").database() if "://" in url else str(tmp_path / "migrated.db")
        assert tables_made(url, by_migration=False) == tables_made(other, by_migration=True)

    async def test_an_old_revision_is_migrated_on_opening(
        self, url: str, opener: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[str] = []
        monkeypatch.setattr(schema, "REVISIONS", ("0000", HEAD))
        monkeypatch.setattr(schema, "migrate", lambda connection, revision: asked.append(revision))
        await closed(opener())
        query(url, "UPDATE alembic_version SET version_num = '0000'")
        await closed(opener())
        assert asked == [HEAD]

    async def test_a_store_of_a_newer_skyspan_is_refused(self, url: str, opener: Callable[[], Store]) -> None:
        await closed(opener())
        query(url, "UPDATE alembic_version SET version_num = '9999'")
        store = opener()
        with pytest.raises(StoreUnavailableError, match="newer Skyspan") as caught:
            await store.secret_names("w")
        assert "9999" in caught.value.detail
        assert "Upgrade" in caught.value.hint
        await store.close()

    async def test_tables_of_somebody_else_are_left_alone(self, url: str, opener: Callable[[], Store]) -> None:
        connection = flavour_for(url).connect()
        connection.exec_driver_sql("CREATE TABLE runs (x integer)")
        connection.close()
        store = opener()
        with pytest.raises(StoreCorruptError, match="not a store of Skyspan"):
            await store.secret_names("w")
        await store.close()

    async def test_many_that_open_a_fresh_store_at_once_all_succeed(self, opener: Callable[[], Store]) -> None:
        stores = [opener() for _ in range(6)]
        assert await asyncio.gather(*(store.secret_names("w") for store in stores)) == [[]] * 6
        for store in stores:
            await store.close()


class TestWriting:
    """Fencing and grouping, seen from the database."""

    async def test_a_lease_covers_no_other_deployment(self, opener: Callable[[], Store]) -> None:
        store = opener()
        lease = await started(store)
        other = DeploymentAddress("default", "other")
        stray = type(cloud_record())(other.stage("cloud"), "command", {})
        for lost in (Batch(put=(stray,)), Batch(removed=(other.stage("cloud"),))):
            with pytest.raises(FencedError, match="other deployments"):
                await store.append("run-0001", lease, lost)
        foreign = await store.acquire(Lease(other, "bob", 0, NOW + 30), NOW)
        with pytest.raises(FencedError):
            await store.append("run-0001", foreign, batch(CancelRequested()))
        await store.close()

    async def test_a_cancelled_caller_changes_nothing_for_the_others(self, opener: Callable[[], Store]) -> None:
        store = opener()
        calls = [asyncio.create_task(store.put_secret("w", f"s{place}", Secret("x"))) for place in range(4)]
        await asyncio.sleep(0)
        calls[1].cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert list(await store.secret_names("w")) == ["s0", "s1", "s2", "s3"]
        await store.close()

    def test_a_store_serves_several_loops_one_after_another(self, opener: Callable[[], Store]) -> None:
        store = opener()
        asyncio.run(store.put_secret("w", "a", Secret("x")))
        assert asyncio.run(store.secret("w", "a")) == Secret("x")
        asyncio.run(store.close())


class TestLostConnections:
    """PostgreSQL goes away and comes back."""

    @pytest.fixture
    def place(self, server: PostgresServer) -> Iterator[str]:
        yield server.database()
        server.reclaim()

    async def test_an_idle_connection_that_was_dropped_is_made_again(
        self, server: PostgresServer, place: str, sealer: EnvelopeSealer
    ) -> None:
        store = open_store(place, sealer)
        lease = await started(store)
        drop_all(server, place)
        await store.append("run-0001", lease, batch(CancelRequested()))
        drop_all(server, place)
        assert [item.seq for item in await store.events("run-0001")] == [1]
        await store.close()

    async def test_a_restarted_server_loses_nothing_and_doubles_nothing(
        self, server: PostgresServer, place: str, sealer: EnvelopeSealer
    ) -> None:
        store = open_store(place, sealer)
        lease = await started(store)
        answered = 0
        for how in (signal.SIGINT, signal.SIGQUIT):
            await store.append("run-0001", lease, batch(CancelRequested(str(answered))))
            answered += 1
            await asyncio.to_thread(server.stop, how=how)
            with pytest.raises(StoreUnavailableError, match="cannot be reached"):
                await store.append("run-0001", lease, batch(CancelRequested("refused")))
            await asyncio.to_thread(server.start)
        found = [item.event for item in await store.events("run-0001")]
        assert found == [CancelRequested(str(place)) for place in range(answered)]
        await store.close()

    async def test_an_answer_lost_after_the_commit_counts_as_done(
        self, server: PostgresServer, place: str, sealer: EnvelopeSealer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = open_store(place, sealer)
        lease = await started(store)
        plain = sa.Connection.exec_driver_sql
        cut: list[str] = []

        def cutting(connection: sa.Connection, sql: str, *rest: object) -> object:
            if sql == "COMMIT" and len(cut) < 2:
                cut.append(sql)
                if len(cut) == 1:  # committed, but the answer gets lost
                    plain(connection, sql)
                drop_all(server, place)
                return plain(connection, "SELECT 1")
            return plain(connection, sql, *rest)  # type: ignore[arg-type]

        monkeypatch.setattr(sa.Connection, "exec_driver_sql", cutting)
        await store.append("run-0001", lease, batch(CancelRequested("answer lost")))
        await store.append("run-0001", lease, batch(CancelRequested("request lost")))
        found = [item.event for item in await store.events("run-0001")]
        assert found == [CancelRequested("answer lost"), CancelRequested("request lost")]
        assert len(cut) == 2
        await store.close()

    async def test_who_stands_still_within_a_transaction_holds_nobody_up(
        self, place: str, sealer: EnvelopeSealer
    ) -> None:
        store = open_store(place, sealer)
        lease = await started(store)
        flavour = flavour_for(place, patience_s=0.1)
        stopped = flavour.connect()
        flavour.begin(stopped, writes=True)
        stopped.exec_driver_sql("UPDATE leases SET expires_at = 0")
        heir = await store.acquire(lease_of("bob", "run-0002"), NOW + 60)
        assert heir.epoch == lease.epoch + 1
        with pytest.raises((sa.exc.DBAPIError, OSError)) as caught:
            stopped.exec_driver_sql("COMMIT")
        trouble = flavour.trouble(caught.value)
        assert trouble is not None
        assert trouble.lost
        stopped.invalidate()
        stopped.close()
        assert await store.holder(HYBRID) == heir
        await store.close()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (("/d", "/nowhere"), "does not exist"),
            (("host=/", "host=/nowhere/"), "cannot be reached"),
            (("skyspan@", "stranger:hunter2@"), "refused the login"),
        ],
    )
    async def test_a_wrong_url_says_what_is_wrong_without_the_password(
        self, place: str, sealer: EnvelopeSealer, change: tuple[str, str], message: str
    ) -> None:
        store = open_store(place.replace(*change, 1), sealer)
        with pytest.raises(StoreUnavailableError, match=message) as caught:
            await store.secret_names("w")
        assert "hunter2" not in str(caught.value)
        assert caught.value.hint
        await store.close()


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["acquire", "renew", "release", "write"]), st.integers(0, 2), st.integers(0, 40)),
    min_size=1,
    max_size=25,
)


@settings(max_examples=25, deadline=None, print_blob=True)
@given(operations=OPERATIONS)
def test_leases_never_let_two_write_in_turn(
    operations: list[tuple[str, int, int]], tmp_path_factory: pytest.TempPathFactory, sealer: EnvelopeSealer
) -> None:
    """Any owner may do anything at any time: only the newest holder ever gets a write or a renewal through."""
    asyncio.run(_play(operations, tmp_path_factory.mktemp("leases") / "s.db", sealer))


async def _play(operations: list[tuple[str, int, int]], path: Path, sealer: EnvelopeSealer) -> None:
    store = open_store(path, sealer)
    await store.save_deployment(DeploymentRecord(HYBRID))
    held: dict[int, Lease] = {}
    newest, expires, free, now = 0, 0.0, True, NOW
    for what, owner, seconds in operations:
        now += seconds
        lease = held.get(owner)
        if what == "acquire":
            try:
                held[owner] = await store.acquire(lease_of(f"owner {owner}", expires_at=now + 30), now)
            except RefusedError:
                assert not free
                assert now < expires
            else:
                assert free or now >= expires
                assert held[owner].epoch == newest + 1
                newest, expires, free = newest + 1, now + 30, False
        elif lease is None:
            continue
        elif what == "release":
            await store.release(lease)
            free = free or lease.epoch == newest
        else:
            ours = lease.epoch == newest and not free
            call = (
                store.renew(lease, now + 30)
                if what == "renew"
                else store.kept(HYBRID.stage("a"), lease.epoch).put("x", b"")
            )
            if ours:
                await call
                expires = now + 30 if what == "renew" else expires
            else:
                with pytest.raises(FencedError):
                    await call
    await store.close()


def drop_all(server: PostgresServer, url: str) -> None:
    """End every connection to the database."""
    name = sa.make_url(url).database
    assert name
    server.disconnect(name)


async def closed(store: Store) -> None:
    """Open it and close it again."""
    await store.secret_names("w")
    await store.close()


def dump(url: str) -> bytes:
    """Everything that is in the database, as bytes."""
    found: list[bytes] = []
    for table in TABLES.tables:
        for row in query(url, f"SELECT * FROM {table}"):
            found += [bytes(item) if isinstance(item, bytes | memoryview) else str(item).encode() for item in row]
    assert found
    if "://" not in url:
        found.append(Path(url).read_bytes())
    return b"\n".join(found)


def tables_made(url: str, *, by_migration: bool) -> object:
    """All there is to know about the tables, after making them in one of the two ways."""
    flavour = flavour_for(url)
    connection = flavour.connect()
    try:
        if by_migration:
            flavour.begin(connection, writes=True, exclusive=True)
            schema.migrate(connection, HEAD)
            connection.exec_driver_sql("COMMIT")
        else:
            schema.ensure_schema(connection, flavour)
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one() == HEAD
        look = sa.inspect(connection)
        return {
            table: {
                "columns": [
                    (
                        column["name"],
                        str(column["type"]),
                        getattr(column["type"], "collation", None),
                        column["nullable"],
                    )
                    for column in look.get_columns(table)
                ],
                "key": look.get_pk_constraint(table),
                "foreign": look.get_foreign_keys(table),
                "indexes": look.get_indexes(table),
                "options": look.get_table_options(table),
            }
            for table in sorted(look.get_table_names())
        }
    finally:
        connection.close()
