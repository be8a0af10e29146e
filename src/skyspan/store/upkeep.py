"""The store's `contracts.upkeep.Upkeep`: each call on a thread and a connection of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from skyspan.contracts.store import Lease
from skyspan.contracts.upkeep import Access, Portion, Pruned, Retention, Survey, Write
from skyspan.model.address import DeploymentAddress
from skyspan.store import audit, integrity, leases, moving, portable, pruning, resealing
from skyspan.store.database import Database, Transaction
from skyspan.store.worker import Worker

P = ParamSpec("P")
T = TypeVar("T")


class SqlUpkeep:
    """Work on a SQL store that may take long and must not hold up anybody."""

    def __init__(self, another: Callable[[], Database]) -> None:
        """`another` gives a database object that is not connected yet."""
        self._another = another

    async def note_access(self, access: Access) -> None:
        await self._write(audit.add, access)

    async def accesses(self, workspace: str, deployment: str | None = None, limit: int = 200) -> Sequence[Access]:
        return await self._read(audit.newest, workspace, deployment, limit)

    async def survey(self) -> Survey:
        return await self._read(integrity.survey)

    async def prune(self, address: DeploymentAddress, retention: Retention) -> Pruned:
        return await self._write(pruning.prune, address, retention)

    async def reseal(self, workspace: str, current: bytes, limit: int) -> int:
        return await self._write(resealing.reseal, workspace, current, limit)

    async def settle(self) -> None:
        await self._alone(lambda database: database.settle())

    async def compact(self) -> None:
        await self._alone(lambda database: database.compact())

    async def held(self, now: float) -> Sequence[Lease]:
        return [lease for lease, _ in await self._read(leases.held, now)]

    async def dump(self, begin: Callable[[], Write]) -> None:
        await self._read(portable.dump, begin)

    async def load(self, records: Callable[[], Iterable[Any]], *, replace: bool, now: float) -> int:
        return await self._write(portable.load, records, replace, now)

    async def empty(self) -> bool:
        return await self._read(portable.is_empty)

    async def take_out(self, address: DeploymentAddress) -> Portion | None:
        return await self._read(moving.take_out, address)

    async def take_in(self, portion: Portion, lease: Lease) -> None:
        await self._write(moving.take_in, portion, lease)

    async def _read(self, work: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        worker = Worker(self._another())
        try:
            return await worker.read(work, *args, **kwargs)
        finally:
            await worker.close()

    async def _write(self, work: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        worker = Worker(self._another())
        try:
            return await worker.write(work, *args, **kwargs)
        finally:
            await worker.close()

    async def _alone(self, work: Callable[[Database], None]) -> None:
        """Work that needs the connection without a transaction around it."""

        def run() -> None:
            database = self._another()
            try:
                work(database)
            finally:
                database.close()

        await asyncio.to_thread(run)
