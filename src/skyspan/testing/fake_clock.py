"""A clock whose time passes only when everybody waits for it."""

from __future__ import annotations

import asyncio
import heapq
from typing import Any


class FakeClock:
    """Virtual time; implements `contracts.context.Clock`.

    As soon as nothing else is left to do in the event loop, time jumps to the earliest sleeper. What other threads and
    processes do takes no virtual time, so it must not run against this clock's timeouts; pass `jumps=False` then and
    move time with `advance`. `start` sets the wall clock, which `turn` moves on its own.
    """

    def __init__(self, start: float = 1_000_000.0, *, jumps: bool = True) -> None:
        self._elapsed = 0.0
        self._wall = start
        self._jumps = jumps
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0
        self._looking: asyncio.Handle | None = None

    def now(self) -> float:
        return self._wall + self._elapsed

    def monotonic(self) -> float:
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._count += 1
        heapq.heappush(self._sleepers, (self._elapsed + seconds, self._count, future))
        if self._jumps:
            self._look(loop)
        await future

    def advance(self, seconds: float) -> None:
        """Let time pass; those whose time has come wake up in order."""
        self._elapsed += seconds
        while self._sleepers and self._sleepers[0][0] <= self._elapsed:
            _, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                future.set_result(None)

    def turn(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an operator might; monotonic time does not notice."""
        self._wall += seconds

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._looking is None:
            self._looking = loop.call_soon(self._jump, loop)

    def _jump(self, loop: asyncio.AbstractEventLoop) -> None:
        self._looking = None
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)
        if not self._sleepers:
            return
        # asyncio has no public way to ask whether anything is left to do; every loop of CPython keeps this queue.
        ready: Any = getattr(loop, "_ready", ())
        if not ready:
            self.advance(self._sleepers[0][0] - self._elapsed)
        if self._sleepers:
            self._look(loop)
