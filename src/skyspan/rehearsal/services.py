"""Runs what stand-ins offer from the start: recorders of requests, a tailnet's server, its members' daemons."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path

from skyspan.contracts.transport import Command, Process, Spawner, StopLadder, Transport
from skyspan.model.error import ToolFailedError, ToolMissingError
from skyspan.rehearsal import recorder, tailnet
from skyspan.rehearsal.machine import BOOT_S, OWN_FOLDERS, Machine
from skyspan.rehearsal.spec import Headscale, Rehearsal, Service, Tailscaled
from skyspan.rehearsal.topology import address_of

_START_S = 30.0
"""How long a service may take to answer, in seconds; each takes less than one."""

_LADDER = StopLadder(0.5, 0.5)


def programs_of(rehearsal: Rehearsal) -> tuple[str, ...]:
    """The programs that the world's services need beyond those of every world."""
    kinds = {type(service) for host in rehearsal.hosts.values() for service in host.services.values()}
    server = tailnet.SERVER_PROGRAMS if Headscale in kinds else ()
    return (*server, *(tailnet.CLIENT_PROGRAMS if Tailscaled in kinds else ()))


def lay_tools(programs: tuple[str, ...], path: str, folder: Path) -> None:
    """Put `programs`, found on `path`, below `folder` to where every stand-in's PATH leads.

    Raises ToolMissingError naming those that are not there.
    """
    found = {name: shutil.which(name, path=path) for name in programs}
    missing = [name for name, where in found.items() if where is None]
    if missing:
        raise ToolMissingError(
            f"the rehearsal's services need {', '.join(missing)}",
            hint="`tools/build test` makes them in a checkout; or put them on PATH (`skyspan doctor` looks for them)",
        )
    target = folder / "usr/local/bin"
    target.mkdir(parents=True)
    for name, where in found.items():
        real = Path(str(where)).resolve()
        if _seen_inside(real):
            (target / name).symlink_to(real)
        else:
            shutil.copy(real, target / name)


def _seen_inside(file: Path) -> bool:
    """Whether a stand-in sees this machine's file: neither on another file system than the root's nor below a folder of
    which every stand-in has one of its own."""
    own = any(file.is_relative_to(Path("/") / folder) for folder, _ in OWN_FOLDERS)
    return not own and file.stat().st_dev == Path("/").stat().st_dev


class Services:
    """The services of a world. `transport` and `spawner` run commands in the world's own namespaces."""

    def __init__(self, transport: Transport, spawner: Spawner) -> None:
        self._transport = transport
        self._spawner = spawner
        self._recorders: dict[tuple[str, int], Process] = {}
        self._served: set[str] = set()

    async def start_all(self, machines: Mapping[str, Machine], rehearsal: Rehearsal) -> Mapping[str, str]:
        """Start every service of these machines; returns the variables that the inner Skyspan is given by them."""
        starting = [
            self.start(machine, service, address_of(rehearsal, machine.name))
            for machine in machines.values()
            for service in rehearsal.hosts[machine.name].services.values()
        ]
        given: dict[str, str] = {}
        for variables in await asyncio.gather(*starting):
            given |= variables
        return given

    async def start(self, machine: Machine, service: Service, address: IPv4Address | None) -> Mapping[str, str]:
        """Start one service of a machine with `address`, or see that it runs; raises ToolFailedError with its words."""
        if isinstance(service, Headscale):
            assert address is not None, "the section was validated"
            return await self._headscale(machine, service, address)
        if isinstance(service, Tailscaled):
            await self._inside(machine, "tailscaled", tailnet.START, given=tailnet.SERVICE)
        else:
            place = (machine.name, service.port)
            running = self._recorders.pop(place, None)
            if running is not None:
                await running.stop()
            argv = ("ip", "netns", "exec", machine.name, sys.executable, "-I", "-S", recorder.__file__)
            self._recorders[place] = await listening(self._spawner, machine.name, (*argv, str(service.port)))
        return {}

    async def stop(self, name: str) -> None:
        """End what runs for the machine `name` but is no process of its own; the others end with it."""
        ours = [place for place in self._recorders if place[0] == name]
        await asyncio.gather(*(self._recorders.pop(place).stop() for place in ours))

    async def members(self, machine: Machine) -> tuple[str, ...]:
        """Whom the Headscale on a machine knows; raises ToolFailedError with its words."""
        said = json.loads(await self._inside(machine, "headscale", tailnet.MEMBERS, tailnet.SERVER_FOLDER)) or []
        return tuple(str(member["given_name"]) for member in said)

    async def _headscale(self, machine: Machine, service: Headscale, address: IPv4Address) -> Mapping[str, str]:
        settings = tailnet.server_settings(service, address)
        place = (tailnet.SERVER_FOLDER, tailnet.server_url(service, address))
        await self._inside(machine, "headscale", tailnet.SERVE, *place, given=settings)
        if machine.name in self._served:
            return {}
        self._served.add(machine.name)
        options = (tailnet.SERVER_FOLDER, *tailnet.key_options(service))
        said = await self._inside(machine, "headscale", tailnet.NEW_KEY, *options)
        return {service.auth_key_env: str(json.loads(said)["key"])}

    async def _inside(self, machine: Machine, what: str, script: str, *arguments: str, given: str = "") -> str:
        command = machine.daemon("sh", "-euc", script, "sh", *arguments)
        completed = await self._transport.run(Command(command, stdin=given.encode(), timeout_s=_START_S))
        if not completed.ok:
            raise ToolFailedError(
                f"the service {what} of the stand-in {machine.name} failed", detail=completed.last_words()
            )
        return completed.text()


async def listening(spawner: Spawner, name: str, argv: tuple[str, ...]) -> Process:
    """Start a service of the stand-in `name` and wait for its first word, which it says once it listens."""
    said = asyncio.Event()
    process = await spawner.start(Command(argv, ladder=_LADDER), lambda *_: said.set())
    ended = asyncio.ensure_future(process.wait())
    spoke = asyncio.ensure_future(said.wait())
    done, _ = await asyncio.wait({ended, spoke}, timeout=BOOT_S, return_when=asyncio.FIRST_COMPLETED)
    ended.cancel()
    spoke.cancel()
    if spoke not in done:
        words = (await process.stop()).last_words()
        raise ToolFailedError(f"a service of the stand-in {name} did not start", detail=words)
    return process
