"""Instructions to a running world from inside it, over a socket: faults, a look at its state."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from skyspan.model.error import SkyspanError, UsageError
from skyspan.rehearsal import faults, trouble
from skyspan.rehearsal.world import World

USAGE = f"use `addresses`, or `fault` and what it is to be. Faults: {faults.USAGE}"


async def serve(world: World) -> asyncio.Server:
    """Listen for instructions: one JSON list of words a connection, answered by one JSON object."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            said = await obey(world, json.loads(await reader.readline()))
        except SkyspanError as error:
            said = {"error": error.summary, "hint": error.hint}
        except ValueError as error:
            said = {"error": f"cannot read the instruction: {error}", "hint": USAGE}
        writer.write(json.dumps(said).encode() + b"\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(answer, world.places.socket)
    os.chmod(world.places.socket, 0o600)  # noqa: PTH101
    return server


async def obey(world: World, words: list[str]) -> Mapping[str, Any]:
    """Do what one instruction says; raises UsageError for one that means nothing."""
    verbs: Mapping[str, Callable[[], Awaitable[Mapping[str, Any]]]] = {
        "addresses": lambda: _addresses(world),
        "fault": lambda: _fault(world, words[1:]),
    }
    if not words or words[0] not in verbs:
        raise UsageError(f"no such instruction: {' '.join(map(str, words))}", hint=USAGE)
    return await verbs[words[0]]()


async def _addresses(world: World) -> Mapping[str, Any]:
    return {name: list(known) for name, known in world.addresses().items()}


async def _fault(world: World, words: list[str]) -> Mapping[str, Any]:
    if not all(isinstance(word, str) for word in words):
        raise UsageError("a fault is said in words", hint=faults.USAGE)
    await trouble.make(world, words)
    return {"fault": words}
