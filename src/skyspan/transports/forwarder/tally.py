"""Counts the connections of a forward, and lets others wait for how one was led on."""

from __future__ import annotations

import asyncio
from collections import deque

from skyspan.contracts.forwarding import Trouble

_REMEMBERED = 64


class Tally:
    """The connections of one forward: `tried` came in, `failed` of them could not be led on."""

    def __init__(self) -> None:
        self.tried = 0
        self.failed = 0
        self._ended: deque[tuple[int, Trouble | None]] = deque(maxlen=_REMEMBERED)
        self._more = asyncio.Condition()

    def begin(self) -> int:
        """A connection came in; its number, from 1."""
        self.tried += 1
        return self.tried

    async def end(self, number: int, trouble: Trouble | None) -> None:
        """It was led on, or not."""
        self.failed += trouble is not None
        self._ended.append((number, trouble))
        async with self._more:
            self._more.notify_all()

    async def heard(self, after: int) -> Trouble | None:
        """How the first connection that came in after the `after`-th was led on, once that is known."""
        async with self._more:
            while True:
                for number, trouble in self._ended:
                    if number > after:
                        return trouble
                await self._more.wait()
