"""The step from the command line's synchronous world into asyncio."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from skyspan.app.session import Session
    from skyspan.app.settings import Settings

Result = TypeVar("Result")

_HAND_OVER_S = 0.0003


def in_session(settings: Settings, work: Callable[[Session], Awaitable[Result]]) -> Result:
    """Run `work` with an open session."""
    from skyspan.app.session import open_session

    # What is imported stays: without this, each full collection walks all of it again.
    gc.freeze()
    # The store writes in a thread of its own, and each write is a hand-over and back: the default of 5 ms is the
    # longest that either side may have to wait for the other at each.
    sys.setswitchinterval(_HAND_OVER_S)

    async def run() -> Result:
        async with open_session(settings) as session:
            return await work(session)

    return asyncio.run(run())
