"""Runs the cloud's ends of VPN connections on the stand-ins that stand for them, as the cloud's state asks."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path

from skyspan.contracts.transport import Command, Transport
from skyspan.model.error import ToolFailedError, ToolMissingError
from skyspan.rehearsal.cloud import vpn_daemons
from skyspan.rehearsal.cloud.vpn import Vpn
from skyspan.rehearsal.hosts.machine import Machine
from skyspan.rehearsal.isolation.firstprocess import LOGIN_ENVIRONMENT
from skyspan.rehearsal.spec import Rehearsal

_START_S = 20.0
"""How long strongSwan and BIRD may take to be up, in seconds; it takes less than one."""


def require(rehearsal: Rehearsal) -> None:
    """Raise ToolMissingError when a stand-in is to be the end of a VPN connection, and what runs it is not there."""
    names = [name for name, host in rehearsal.hosts.items() if host.vpn_tags is not None]
    if not names:
        return
    missing = [name for name in ("swanctl", "bird") if shutil.which(name, path=LOGIN_ENVIRONMENT["PATH"]) is None]
    missing += [] if any(Path(place).exists() for place in vpn_daemons.CHARON) else ["charon"]
    if missing:
        raise ToolMissingError(
            f"{names[0]} stands for a VPN connection, which needs {', '.join(missing)}",
            hint="`tools/debian world` installs them in a checkout; or: apt-get install bird2 strongswan-charon "
            "strongswan-swanctl libstrongswan-standard-plugins libcharon-extra-plugins",
        )


class VpnEnds:
    """The ends that run. `transport` runs commands in the world's own namespaces."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._running: dict[str, tuple[Vpn, str]] = {}

    async def follow(self, wanted: Mapping[str, Vpn], machines: Mapping[str, Machine]) -> None:
        """Let the ends be these, by the name of their machine; raises ToolFailedError with the last words.

        Other keys or addresses end the sessions, as in the cloud; other routes do not.
        """
        names = {*wanted, *self._running}
        await asyncio.gather(*(self._settle(machines[name], wanted.get(name)) for name in sorted(names)))

    def forget(self, name: str) -> None:
        """The machine was rebooted: what ran there no longer does."""
        self._running.pop(name, None)

    async def _settle(self, machine: Machine, vpn: Vpn | None) -> None:
        old = self._running.get(machine.name)
        keys = None if vpn is None else vpn_daemons.connections(vpn)
        if old is not None and (vpn is None or keys != vpn_daemons.connections(old[0])):
            del self._running[machine.name]
            await self._inside(machine, vpn_daemons.STOP)
            old = None
        if vpn is None or keys is None:
            return
        routing = vpn_daemons.routing(vpn)
        if old is None:
            await self._inside(machine, vpn_daemons.START, *vpn_daemons.start_arguments(vpn), given=keys)
        elif old[1] != routing:
            await self._inside(machine, vpn_daemons.ROUTES, given=routing)
        self._running[machine.name] = (vpn, routing)

    async def _inside(self, machine: Machine, script: str, *arguments: str, given: str = "") -> None:
        argv = machine.daemon("sh", "-euc", script, "sh", *arguments)
        completed = await self._transport.run(Command(argv, stdin=given.encode(), timeout_s=_START_S))
        if not completed.ok:
            raise ToolFailedError(
                f"the cloud's ends of the VPN connection on {machine.name} failed", detail=completed.last_words()
            )
