"""Makes the journal durable while a command runs: at once, then at most every tenth of a second."""

from __future__ import annotations

import asyncio

from skyspan.contracts.context import Clock, KeptWriter
from skyspan.providers.terraform.finishing import completed
from skyspan.providers.terraform.journal import KEPT_JOURNAL, Journal
from skyspan.providers.terraform.parse import Moved

_PAUSE_S = 0.1


class Recorder:
    """Give `note` to a listener; `stop` before reading the journal's last form. A failing write is raised there."""

    def __init__(self, kept: KeptWriter, clock: Clock, journal: Journal) -> None:
        self.journal = journal
        self.exit_code: int | None = None  # Of the last writing command; None while none has ended.
        self.dumped = b""  # The state, in clear, where a command could save it nowhere.
        self._kept = kept
        self._clock = clock
        self._written = journal
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Write the journal as it is, durably, before anything happens; then follow."""
        await self._kept.put(KEPT_JOURNAL, self.journal.dump())
        self._task = asyncio.ensure_future(self._follow())

    def note(self, step: Moved) -> None:
        """Take up a message."""
        self.journal = self.journal.after(step, self._clock.now())
        self._news.set()

    async def stop(self) -> None:
        """Stop following; what is not written yet is left to the caller to write. Raises what a write raised."""
        task, self._task = self._task, None
        if task is None:
            return
        if not task.done():
            task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            if not task.cancelled():
                raise

    async def _follow(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            if self.journal is not self._written:
                self._written = journal = self.journal
                # A write that was begun is finished: half a write is worth nothing.
                await completed(self._kept.put(KEPT_JOURNAL, journal.dump()))
            await self._clock.sleep(_PAUSE_S)
