"""Runs what stand-ins offer from the start: recorders, a tailnet's server, its members' daemons, Docker hosts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path

from skyspan.contracts.transport import Command, Process, Spawner, Transport
from skyspan.model.error import ToolFailedError, ToolMissingError
from skyspan.rehearsal.hosts.machine import Belongings, Machine
from skyspan.rehearsal.isolation import cgroups
from skyspan.rehearsal.places import Ground, Places
from skyspan.rehearsal.programs import inside, listening, standard
from skyspan.rehearsal.services import dockerhost, inventory, recorder, tailnet
from skyspan.rehearsal.services.images import Archive, Sources, archives
from skyspan.rehearsal.services.tools import lay_tools
from skyspan.rehearsal.spec import Docker, Headscale, Recorder, Rehearsal, Service, StandIn, Tailscaled, services_of
from skyspan.rehearsal.underlay.topology import address_of

_START_S = 30.0
"""How long a service may take to answer, in seconds; each takes less than one."""

_IMAGE_S = 300.0
"""How long making an image may take, in seconds; one of 150 MB takes one."""


def programs_of(rehearsal: Rehearsal) -> tuple[str, ...]:
    """The programs that the world's services need beyond those of every world."""
    kinds = {type(service) for host in rehearsal.hosts.values() for service in host.services.values()}
    server = tailnet.SERVER_PROGRAMS if Headscale in kinds else ()
    client = tailnet.CLIENT_PROGRAMS if Tailscaled in kinds else ()
    return (*server, *client, *(dockerhost.PROGRAMS if Docker in kinds else ()))


def own_texts(host: StandIn) -> Mapping[str, str]:
    """What the services of a stand-in have to find among its files, by path."""
    daemon = next(iter(services_of(host, Docker)), None)
    return {} if daemon is None else {dockerhost.SETTINGS_FILE: dockerhost.settings(daemon.settings)}


def private_folders(host: StandIn) -> tuple[str, ...]:
    """Folders of which a stand-in with these services sees nothing of this machine's."""
    return dockerhost.OWN_FOLDERS if services_of(host, Docker) else ()


def belongings(name: str, host: StandIn, places: Places, ground: Ground) -> Belongings:
    """What a stand-in boots with. A Docker host has a folder for its data and fresh control groups. Blocks."""
    if not services_of(host, Docker):
        return Belongings(places.tools)
    data = places.machine(name) / "docker"
    data.mkdir(mode=0o711, exist_ok=True)
    found = cgroups.here()
    if not found or not ground.groups:
        raise ToolMissingError(f"no control groups for {name}: none are mounted at {cgroups.MOUNTS}")
    try:
        return Belongings(places.tools, {dockerhost.DATA: data}, cgroups.make(found, ground.groups, name))
    except OSError as error:
        raise ToolFailedError(
            f"no control groups can be made for {name}",
            detail=str(error),
            hint=f"a Docker host needs {cgroups.MOUNTS} to be writable: in a container that is an option of its own",
        ) from error


class Services:
    """The services of a world. `transport` and `spawner` run commands in the world's own namespaces."""

    def __init__(self, transport: Transport, spawner: Spawner) -> None:
        self._transport = transport
        self._spawner = spawner
        self._listening: dict[tuple[str, int], Process] = {}
        self._served: set[str] = set()
        self._archives: Mapping[str, Archive] = {}

    def provide(self, rehearsal: Rehearsal, sources: Sources, tools: Path) -> None:
        """Have what the services of `rehearsal` are made of before any machine boots: programs in `tools`, images.

        Raises ToolMissingError or UsageError for what is not there, saying how to get it.
        """
        daemons = [one for host in rehearsal.hosts.values() for one in services_of(host, Docker)]
        lay_tools(programs_of(rehearsal), sources.path, tools, dockerhost.MORE_PROGRAMS if daemons else ())
        if (tools / "usr/local/bin/docker-compose").exists():
            plugins = tools / dockerhost.PLUGINS
            plugins.mkdir(parents=True)
            (plugins / "docker-compose").symlink_to("/usr/local/bin/docker-compose")
        self._archives = archives(sorted({name for daemon in daemons for name in daemon.images.values()}), sources)

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
        elif isinstance(service, Docker):
            await self._docker(machine, service)
        else:
            place = (machine.name, service.port)
            running = self._listening.pop(place, None)
            if running is not None:
                await running.stop()
            program = recorder if isinstance(service, Recorder) else inventory
            argv = inside(machine.name, *standard(program, str(service.port)))
            self._listening[place] = await listening(self._spawner, machine.name, argv)
        return {}

    async def stop(self, name: str) -> None:
        """End what runs for the machine `name` but is no process of its own; the others end with it."""
        ours = [place for place in self._listening if place[0] == name]
        await asyncio.gather(*(self._listening.pop(place).stop() for place in ours))

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

    async def _docker(self, machine: Machine, service: Docker) -> None:
        known = (await self._inside(machine, "docker", dockerhost.START, given=dockerhost.SERVICE)).split()
        for reference, source in service.images.items():
            if dockerhost.full_name(reference) in known:
                continue
            archive = self._archives[source]
            script = dockerhost.IMPORT if archive.instructions else dockerhost.LOAD
            argv = machine.daemon("sh", "-euc", script, "sh", reference, *archive.instructions)
            # The file is this machine's, the daemon is the stand-in's; between them is a descriptor.
            opened = ("sh", "-euc", 'file=$1; shift; exec "$@" <"$file"', "sh", str(archive.file), *argv)
            done = await self._transport.run(Command(opened, timeout_s=_IMAGE_S))
            if not done.ok:
                raise ToolFailedError(
                    f"the stand-in {machine.name} cannot have the image {reference} from {source}",
                    detail=done.last_words(),
                )

    async def _inside(self, machine: Machine, what: str, script: str, *arguments: str, given: str = "") -> str:
        command = machine.daemon("sh", "-euc", script, "sh", *arguments)
        completed = await self._transport.run(Command(command, stdin=given.encode(), timeout_s=_START_S))
        if not completed.ok:
            raise ToolFailedError(
                f"the service {what} of the stand-in {machine.name} failed", detail=completed.last_words()
            )
        return completed.text()
