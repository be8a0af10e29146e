"""Starts the world's own small programs, which are run by path with the standard library only."""

from __future__ import annotations

import asyncio
import sys
from types import ModuleType

from skyspan.contracts.transport import Command, Process, Spawner, StopLadder
from skyspan.model.error import ToolFailedError

BOOT_S = 20.0
"""How long a stand-in, or a program, may take to be up, in seconds; it takes a few hundredths."""

LADDER = StopLadder(0.5, 0.5)
"""None of them has anything to save."""


def standard(program: ModuleType, *arguments: str) -> tuple[str, ...]:
    """How such a program is started: without the environment's packages, with which Python may be slow to start."""
    return (sys.executable, "-I", "-S", str(program.__file__), *arguments)


def inside(namespace: str, *argv: str) -> tuple[str, ...]:
    """`argv` to be run in a named network namespace, with this machine's files."""
    return ("ip", "netns", "exec", namespace, *argv)


async def listening(spawner: Spawner, name: str, argv: tuple[str, ...]) -> Process:
    """Start a service of the stand-in `name` and wait for its first word, which it says once it listens."""
    said = asyncio.Event()
    process = await spawner.start(Command(argv, ladder=LADDER), lambda *_: said.set())
    ended = asyncio.ensure_future(process.wait())
    spoke = asyncio.ensure_future(said.wait())
    done, _ = await asyncio.wait({ended, spoke}, timeout=BOOT_S, return_when=asyncio.FIRST_COMPLETED)
    ended.cancel()
    spoke.cancel()
    if spoke not in done:
        words = (await process.stop()).last_words()
        raise ToolFailedError(f"a service of the stand-in {name} did not start", detail=words)
    return process
