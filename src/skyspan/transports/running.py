"""Owns the run of a command to its end: its timeout, and its stop when the caller is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

from skyspan.contracts.transport import Completed, Process
from skyspan.model.error import StageError


async def to_the_end(process: Process, timeout_s: float | None) -> Completed:
    """Wait for `process`; after `timeout_s` stop it by its ladder and say so in the result.

    Cancelling stops it by its ladder, then raises; cancelling again kills it at once.
    """
    waiting = asyncio.ensure_future(process.wait())
    try:
        done, _ = await asyncio.wait({waiting}, timeout=timeout_s)
    except asyncio.CancelledError:
        waiting.cancel()
        # The caller wants it stopped; how it ended, or that its host is gone, is not asked any more.
        with contextlib.suppress(StageError):
            await process.stop()
        raise
    if done:
        return waiting.result()
    waiting.cancel()
    stopping = asyncio.ensure_future(process.stop())
    try:
        return replace(await asyncio.shield(stopping), timed_out=True)
    except asyncio.CancelledError:
        # The first cancellation finds the ladder climbed already; only one more cuts it short.
        with contextlib.suppress(StageError):
            await stopping
        raise
