"""Owns the order in which a running command is stopped, the same on every transport."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from skyspan.contracts.transport import StopLadder

LAST_WAIT_S = 5.0
"""How long the end is awaited after SIGKILL: only a process stuck in the kernel takes longer."""


async def climb(
    ladder: StopLadder,
    ended: asyncio.Future[None],
    interrupt: Callable[[], Awaitable[None]],
    kill: Callable[[], Awaitable[None]],
) -> None:
    """Interrupt, wait, interrupt again, wait, kill the whole group; return once `ended` is done.

    Cancelling it kills at once: whoever asks a second time does not want to wait.
    """
    try:
        for pause in (ladder.first_s, ladder.second_s):
            if ended.done():
                return
            await interrupt()
            await asyncio.wait({ended}, timeout=pause)
    except asyncio.CancelledError:
        await _kill(ended, kill)
        raise
    await _kill(ended, kill)


async def _kill(ended: asyncio.Future[None], kill: Callable[[], Awaitable[None]]) -> None:
    if not ended.done():
        await kill()
        await asyncio.wait({ended}, timeout=LAST_WAIT_S)
