"""Owns the order in which a running command is stopped, the same on every transport."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from skyspan.contracts.transport import StopLadder

LAST_WAIT_S = 5.0
"""How long the end is awaited after SIGKILL: only a process stuck in the kernel takes longer."""


def _untold(_: str) -> None:
    """Nobody wants to know."""


async def climb(
    ladder: StopLadder,
    ended: asyncio.Future[None],
    interrupt: Callable[[], Awaitable[None]],
    kill: Callable[[], Awaitable[None]],
    tell: Callable[[str], None] = _untold,
) -> None:
    """Interrupt, wait, interrupt again, wait, kill the whole group; return once `ended` is done.

    `tell` is told each step in words as it is made. Cancelling it kills at once: whoever asks a second time does not
    want to wait.
    """
    began = time.monotonic()

    def passed() -> str:
        return f"{time.monotonic() - began:.1f} s"

    if ended.done():
        return
    try:
        tell(f"stopping: SIGINT, then up to {ladder.first_s:g} s to end in order")
        await interrupt()
        await asyncio.wait({ended}, timeout=ladder.first_s)
        if not ended.done():
            tell(f"no end after {passed()}: SIGINT again, then up to {ladder.second_s:g} s")
            await interrupt()
            await asyncio.wait({ended}, timeout=ladder.second_s)
        if not ended.done():
            tell(f"no end after {passed()}: SIGKILL for all of its group")
    except asyncio.CancelledError:
        if not ended.done():
            tell(f"to be stopped at once after {passed()}: SIGKILL for all of its group")
        await _kill(ended, kill)
        tell(_ending(ended, passed()))
        raise
    await _kill(ended, kill)
    tell(_ending(ended, passed()))


async def _kill(ended: asyncio.Future[None], kill: Callable[[], Awaitable[None]]) -> None:
    if not ended.done():
        await kill()
        await asyncio.wait({ended}, timeout=LAST_WAIT_S)


def _ending(ended: asyncio.Future[None], passed: str) -> str:
    return f"it ended {passed} after it was told to" if ended.done() else f"it still has not ended after {passed}"
