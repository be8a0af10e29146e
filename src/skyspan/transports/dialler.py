"""Owns the way from a host's name to its transport, and the connections that all stages share."""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Mapping
from types import TracebackType
from typing import Any

from skyspan.contracts.host import Host
from skyspan.contracts.transport import Transport
from skyspan.model.error import SpecError
from skyspan.transports.ssh_connect import SshSettings


class HostDialler:
    """Transports by host (a `contracts.transport.Dialler`), connected on first use and shared by all who mean the same.

    Hosts become known stage by stage: `for_hosts` gives a dialler for others over the same connections. A host is the
    same when everything about how to reach it is the same, the hosts it is reached through included.
    """

    def __init__(self, local: Transport, settings: SshSettings, hosts: Mapping[str, Host] | None = None) -> None:
        self._local = local
        self._settings = settings
        self._hosts = dict(hosts or {})
        self._shared: dict[Hashable, Any] = {}

    def for_hosts(self, hosts: Mapping[str, Host]) -> HostDialler:
        """A dialler that knows `hosts`, over the connections of this one; closing either closes them all."""
        view = HostDialler(self._local, self._settings, hosts)
        view._shared = self._shared
        return view

    def reach(self, host: str | None) -> Transport:
        return self._local if host is None else self._ssh(host, ())

    async def close(self) -> None:
        # Those that were made last may go through those before.
        while self._shared:
            _, transport = self._shared.popitem()
            await transport.close()
        await self._local.close()

    async def __aenter__(self) -> HostDialler:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _ssh(self, name: str, through: tuple[str, ...]) -> Any:
        from skyspan.transports.ssh import SshTransport

        key = self._identity(name, through)
        transport = self._shared.get(key)
        if transport is None:
            host = self._hosts[name]
            jump = self._ssh(host.jump, (*through, name)) if host.jump is not None else None
            transport = self._shared[key] = SshTransport(host, self._settings, jump)
        return transport

    def _identity(self, name: str, through: tuple[str, ...]) -> Hashable:
        """All that decides how to reach the host `name`. Raises SpecError for an unknown host or a circle of jumps."""
        host = self._hosts.get(name)
        if host is None:
            near = difflib.get_close_matches(name, self._hosts, 1)
            known = f"did you mean {near[0]}?" if near else f"known hosts: {', '.join(sorted(self._hosts)) or 'none'}"
            raise SpecError(f"there is no host {name}", hint=known)
        if name in through:
            raise SpecError(f"the jump hosts lead in a circle: {' -> '.join((*through, name))}")
        jump = self._identity(host.jump, (*through, name)) if host.jump is not None else None
        way = (host.name, host.address, host.port, host.user, host.key, host.key_file, host.host_key, host.known_hosts)
        return (*way, jump)
