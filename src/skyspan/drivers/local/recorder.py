"""Writes events in order, several in one transaction, one transaction at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from skyspan.contracts.context import Clock
from skyspan.contracts.store import Batch, StageRecord
from skyspan.engine import StopAttempt
from skyspan.model.address import StageAddress
from skyspan.model.error import StoreError
from skyspan.model.event import Event

_ROUNDS = 3
"""Turns of the event loop that a write waits for company. The next attempt begins in the same turn as the end of the
one before is queued, and often reaches its intent within these: then both become durable by one fsync."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What belongs in one transaction; `stops` may be performed once it is durable."""

    events: tuple[tuple[float, Event], ...]
    put: StageRecord | None = None
    removed: StageAddress | None = None
    stops: tuple[StopAttempt, ...] = ()


class Recorder:
    """The way to the store.

    `write` makes a batch durable; `written` is told what was, in order; `failed` is told once why nothing more can be.
    What could not be written stays queued for `drain`.
    """

    def __init__(
        self,
        write: Callable[[Batch], Awaitable[None]],
        written: Callable[[Sequence[Entry]], None],
        failed: Callable[[Exception], None],
        clock: Clock,
        linger_s: float,
    ) -> None:
        self._write, self._written, self._failed = write, written, failed
        self._clock, self._linger_s = clock, linger_s
        self._queue: list[Entry] = []
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._added = 0
        self._durable = 0
        self._writer: asyncio.Task[None] | None = None
        self._linger: asyncio.Task[None] | None = None
        self.failure: Exception | None = None

    def add(self, entry: Entry) -> int:
        """Queue it and begin to write; the number is for `durable`."""
        number = self._queued(entry)
        self._begin()
        return number

    def note(self, entry: Entry) -> None:
        """Queue it; it is written with what comes next, or soon."""
        self._queued(entry)
        if self._writer is None and self._linger is None and self.failure is None:
            self._linger = asyncio.create_task(self._write_soon())

    async def durable(self, number: int) -> None:
        """Wait until that entry is durable; raises what kept it from being so."""
        if self.failure is not None:
            raise self.failure
        if number <= self._durable:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((number, future))
        await future

    async def drain(self) -> None:
        """Write all that is queued, once more even after a failure; raises when that fails."""
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        if self._writer is not None:
            await asyncio.wait({self._writer})
        while self._queue:
            await self._write_queue()

    def _queued(self, entry: Entry) -> int:
        self._queue.append(entry)
        self._added += 1
        return self._added

    def _begin(self) -> None:
        if self._writer is None and self.failure is None:
            self._writer = asyncio.create_task(self._write_all())

    async def _write_soon(self) -> None:
        await self._clock.sleep(self._linger_s)
        self._linger = None
        self._begin()

    async def _write_all(self) -> None:
        try:
            for _ in range(_ROUNDS):
                await asyncio.sleep(0)
            while self._queue:
                await self._write_queue()
        except Exception as error:
            self._give_up(error)
        finally:
            self._writer = None

    async def _write_queue(self) -> None:
        entries, self._queue = self._queue, []
        try:
            await self._write(_batch(entries))
        except BaseException:
            self._queue = entries + self._queue
            raise
        self._durable += len(entries)
        self._written(entries)
        still: list[tuple[int, asyncio.Future[None]]] = []
        for number, future in self._waiting:
            if number > self._durable:
                still.append((number, future))
            elif not future.done():
                future.set_result(None)
        self._waiting = still

    def _give_up(self, error: Exception) -> None:
        self.failure = error
        waiting, self._waiting = self._waiting, []
        for _, future in waiting:
            if not future.done():
                future.set_exception(_fresh(error))
        self._failed(error)


def _batch(entries: Sequence[Entry]) -> Batch:
    """One batch of them all; of several writes to one stage's record the last one counts."""
    events: list[tuple[float, Event]] = []
    records: dict[StageAddress, StageRecord | None] = {}
    for entry in entries:
        events += entry.events
        if entry.put is not None:
            records[entry.put.address] = entry.put
        if entry.removed is not None:
            records[entry.removed] = None
    return Batch(
        events=tuple(events),
        put=tuple(record for record in records.values() if record is not None),
        removed=tuple(address for address, record in records.items() if record is None),
    )


def _fresh(error: Exception) -> Exception:
    """A copy for one waiter: a shared exception would collect the tracebacks of all of them."""
    if isinstance(error, StoreError):
        return type(error)(error.summary, detail=error.detail, hint=error.hint)
    return error
