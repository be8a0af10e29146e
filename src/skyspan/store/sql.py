"""The store on a SQL database: SQLite in a file of the state home, or PostgreSQL."""

from __future__ import annotations

import time
from asyncio import sleep
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa

from skyspan.contracts.context import Clock, KeptWriter
from skyspan.contracts.store import (
    Batch,
    ConnectionRecord,
    DeploymentRecord,
    Lease,
    LogBlock,
    LogLine,
    RunRecord,
    Sealer,
    StageRecord,
    StageRunRecord,
)
from skyspan.model.address import DeploymentAddress, StageAddress
from skyspan.model.error import FencedError, StoreError, UsageError
from skyspan.model.event import RecordedEvent
from skyspan.model.secret import Secret
from skyspan.store import audit, connections, deployments, leases, logs, runs, secrets
from skyspan.store.database import Database, Transaction
from skyspan.store.flavour import Flavour
from skyspan.store.sqlite import SqliteFlavour
from skyspan.store.worker import Worker

if TYPE_CHECKING:
    from skyspan.contracts.upkeep import Upkeep


P = ParamSpec("P")
T = TypeVar("T")


def open_store(url_or_path: str | Path, sealer: Sealer, clock: Clock | None = None) -> SqlStore:
    """The store in the SQLite file at a path, or at a `sqlite://` or `postgresql://` URL.

    Cheap: the database is opened, and made or migrated where needed, by the first call; that one raises
    StoreUnavailableError or StoreCorruptError when it does not work, and a later one tries again. Raises UsageError
    for a URL that is not understood.
    """
    time_source = clock or SystemClock()

    def another() -> Database:
        return Database(flavour_for(url_or_path), sealer, time_source)

    return SqlStore(Worker(another()), another)


def flavour_for(url_or_path: str | Path, *, patience_s: float = 10.0) -> Flavour:
    """The kind of database behind a path or URL; `patience_s` is how long to wait for other writers' locks."""
    text = str(url_or_path)
    if "://" not in text:
        return SqliteFlavour(Path(text), patience_s=patience_s)
    scheme = text.split(":", 1)[0]
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError) as problem:
        # The URL may hold a password, and so may the problem's text.
        raise UsageError(f"the store's {scheme} URL is malformed", hint=_FORMS) from problem
    if scheme == "sqlite" and url.database:
        return SqliteFlavour(Path(url.database), patience_s=patience_s)
    if scheme in ("postgresql", "postgres", "postgresql+pg8000"):
        from skyspan.store.postgres import PostgresFlavour

        return PostgresFlavour(url, patience_s=patience_s)
    raise UsageError(f"a store cannot be at a {scheme} URL", hint=_FORMS)


_FORMS = "Write a path, sqlite:////absolute/path, or postgresql://user@host/database."


class SystemClock:
    """The machine's time."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await sleep(seconds)


class SqlStore:
    """A `Store`: all work is done by one thread, which commits all calls that wait at the same time together.

    A cancelled call is carried out all the same, so that the order of calls never depends on who waits.
    """

    def __init__(self, worker: Worker, another: Callable[[], Database] | None = None) -> None:
        """`another` gives one more way into the same database, for its upkeep."""
        self._worker = worker
        self._another = another

    def upkeep(self) -> Upkeep:
        """The care of this store; only of one that `open_store` opened."""
        # Imported here: most commands have no use for it.
        from skyspan.store.upkeep import SqlUpkeep

        assert self._another is not None
        return SqlUpkeep(self._another)

    async def under(
        self,
        address: DeploymentAddress,
        epoch: int,
        work: Callable[Concatenate[Transaction, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Write as the holder of `epoch`. That it was refused is remembered, as it tells of an engine that came back
        from the dead."""
        try:
            return await self._worker.write(work, *args, **kwargs)
        except FencedError as error:
            # Who is refused gets to hear of it in any case.
            with suppress(StoreError):
                await self._worker.write(audit.add_refusal, address, epoch, work.__name__, error)
            raise

    async def deployment(self, address: DeploymentAddress) -> DeploymentRecord | None:
        return await self._worker.read(deployments.find_deployment, address)

    async def deployments(self, workspace: str) -> Sequence[DeploymentRecord]:
        return await self._worker.read(deployments.list_deployments, workspace)

    async def save_deployment(self, record: DeploymentRecord, lease: Lease | None = None) -> None:
        await self.under(record.address, lease.epoch if lease else 0, deployments.save_deployment, record, lease)

    async def stage_records(self, address: DeploymentAddress) -> Sequence[StageRecord]:
        return await self._worker.read(deployments.list_stages, address)

    async def forget_deployment(self, address: DeploymentAddress) -> None:
        await self._worker.write(deployments.forget_deployment, address)

    def kept(self, address: StageAddress, epoch: int) -> KeptWriter:
        return SqlKept(self, self._worker, address, epoch)

    async def begin_run(self, run: RunRecord, lease: Lease) -> None:
        await self.under(run.deployment, lease.epoch, runs.begin_run, run, lease)

    async def append(self, run_id: str, lease: Lease, batch: Batch) -> None:
        await self.under(lease.deployment, lease.epoch, runs.append, run_id, lease, batch)

    async def run(self, run_id: str) -> RunRecord | None:
        return await self._worker.read(runs.find_run, run_id)

    async def runs(self, address: DeploymentAddress, limit: int = 50) -> Sequence[RunRecord]:
        return await self._worker.read(runs.list_runs, address, limit)

    async def stage_runs(self, run_id: str) -> Sequence[StageRunRecord]:
        return await self._worker.read(runs.list_stage_runs, run_id)

    async def events(self, run_id: str, after: int = 0, limit: int = 1000) -> Sequence[RecordedEvent]:
        return await self._worker.read(runs.list_events, run_id, after, limit)

    async def acquire(self, lease: Lease, now: float) -> Lease:
        return await self._worker.write(leases.acquire, lease, now)

    async def renew(self, lease: Lease, expires_at: float) -> Lease:
        return await self.under(lease.deployment, lease.epoch, leases.renew, lease, expires_at)

    async def release(self, lease: Lease) -> None:
        await self._worker.write(leases.release, lease)

    async def holder(self, address: DeploymentAddress) -> Lease | None:
        return await self._worker.read(leases.holder, address)

    async def request_cancel(self, run_id: str, requested_by: str) -> None:
        await self._worker.write(leases.request_cancel, run_id, requested_by)

    async def cancel_requested(self, run_id: str) -> str | None:
        return await self._worker.read(leases.cancel_requested, run_id)

    async def append_log(self, lines: Sequence[LogLine], lease: Lease | None = None) -> None:
        if not lines:
            return
        lines = lines if isinstance(lines, LogBlock) else tuple(lines)
        if lease is None:
            await self._worker.write(logs.append_log, lines, None)
        else:
            await self.under(lease.deployment, lease.epoch, logs.append_log, lines, lease)

    async def log(self, run_id: str, stage: str | None = None, after: int = 0, limit: int = 1000) -> Sequence[LogLine]:
        return await self._worker.read(logs.read_log, run_id, stage, after, limit)

    async def put_secret(self, workspace: str, name: str, value: Secret) -> None:
        await self._worker.write(secrets.put_secret, workspace, name, value)

    async def secret_names(self, workspace: str) -> Sequence[str]:
        return await self._worker.read(secrets.secret_names, workspace)

    async def secret(self, workspace: str, name: str) -> Secret | None:
        return await self._worker.read(secrets.find_secret, workspace, name)

    async def remove_secret(self, workspace: str, name: str) -> bool:
        return await self._worker.write(secrets.remove_secret, workspace, name)

    async def put_connection(self, workspace: str, name: str, text: str, *, replace: bool = False) -> bool:
        return await self._worker.write(connections.put_connection, workspace, name, text, replace)

    async def connections(self, workspace: str) -> Sequence[ConnectionRecord]:
        return await self._worker.read(connections.list_connections, workspace)

    async def connection(self, workspace: str, name: str) -> ConnectionRecord | None:
        return await self._worker.read(connections.find_connection, workspace, name)

    async def remove_connection(self, workspace: str, name: str) -> bool:
        return await self._worker.write(connections.remove_connection, workspace, name)

    async def close(self) -> None:
        await self._worker.close()


class SqlKept:
    """What one stage keeps for itself; a `KeptWriter`."""

    def __init__(self, store: SqlStore, worker: Worker, address: StageAddress, epoch: int) -> None:
        self._store, self._worker = store, worker
        self._address = address
        self._epoch = epoch

    async def get(self, name: str) -> bytes | None:
        return await self._worker.read(deployments.get_kept, self._address, name)

    async def put(self, name: str, data: bytes) -> None:
        of = self._address.deployment
        await self._store.under(of, self._epoch, deployments.put_kept, self._address, self._epoch, name, data)

    def put_soon(self, name: str, data: bytes) -> None:
        self._worker.write_with_next(deployments.put_kept, self._address, self._epoch, name, data)

    async def remove(self, name: str) -> None:
        of = self._address.deployment
        await self._store.under(of, self._epoch, deployments.remove_kept, self._address, self._epoch, name)
