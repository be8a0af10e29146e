"""Instructions to a running world from inside it, over a socket: faults, a look at its state."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from skyspan.model.error import SkyspanError, UsageError
from skyspan.rehearsal.faults import between_sites, on_hosts
from skyspan.rehearsal.faults.words import meaning
from skyspan.rehearsal.hosts.processes import kill
from skyspan.rehearsal.world import World

USAGE = f"use `addresses`, or `fault` and what it is to be. Faults: {between_sites.USAGE}"

_REROUTING = frozenset({"nat", "rebind", "clear"})
"""What gives connections other addresses: the router has to forget those that it tracks."""


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
        raise UsageError("a fault is said in words", hint=between_sites.USAGE)
    await make(world, words)
    return {"fault": words}


async def make(world: World, words: Sequence[str]) -> None:
    """Do what one instruction says (see `between_sites.USAGE`); raises UsageError, ToolFailedError."""
    wanted = meaning(words, world.faults, world.rehearsal)
    if isinstance(wanted, between_sites.Faults):
        await world.disturb(wanted, forget_connections=words[0] in _REROUTING)
        if words[0] == "clear":
            for name in world.clocks.stepped():
                await world.clocks.step(world.machines[name], 0)
    else:
        await _perform(world, wanted)
    world.say(" ".join(words))


async def _perform(world: World, act: on_hosts.Act) -> None:
    match act:
        case on_hosts.Renumber(host, address):
            await world.renumber(host, address)
        case on_hosts.Kill(host, program):
            kill(world.machines[host], program)
        case on_hosts.Start(host, service):
            await world.start_service(host, service)
        case on_hosts.Reboot(host):
            await world.reboot(host)
        case on_hosts.Clock(host, step):
            await world.clocks.step(world.machines[host], step)
