"""Owns the last check before a forwarder is changed, and spares everybody else the import of what drives one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from skyspan.contracts.forwarding import ForwarderControl, ForwarderState, Forwarding, Trouble
from skyspan.contracts.host import Host
from skyspan.model.address import StageAddress
from skyspan.transports.ssh_connect import SshSettings

if TYPE_CHECKING:
    from skyspan.transports.forwarder.control import StageForwarder


class LazyForwarder:
    """The forwarder of the stage at `address` (a `ForwarderControl`), of which nothing is loaded before it is used:
    hardly any stage has one."""

    def __init__(self, home: Path, address: StageAddress, hosts: Mapping[str, Host], ssh: SshSettings) -> None:
        self._home, self._address, self._hosts, self._ssh = home, address, hosts, ssh

    async def look(self) -> ForwarderState | None:
        return await self._real().look()

    async def heard(self, name: str, after: int, timeout_s: float) -> Trouble | None:
        return await self._real().heard(name, after, timeout_s)

    async def forward(self, forwarding: Forwarding, *, anew: bool = False) -> None:
        await self._real().forward(forwarding, anew=anew)

    async def reconnect(self) -> None:
        await self._real().reconnect()

    async def end(self) -> None:
        await self._real().end()

    def _real(self) -> StageForwarder:
        from skyspan.transports.forwarder.control import StageForwarder, forwarder_folder

        return StageForwarder(forwarder_folder(self._home, self._address), self._hosts, self._ssh)


class GuardedForwarder:
    """A `ForwarderControl` that asks `assured` before each change; that one raises FencedError when the lease was taken
    over. `reached` is told of the crash points around it."""

    def __init__(
        self, forwarder: ForwarderControl, assured: Callable[[], Awaitable[None]], reached: Callable[[str], None]
    ) -> None:
        self._forwarder, self._assured, self._reached = forwarder, assured, reached

    async def look(self) -> ForwarderState | None:
        return await self._forwarder.look()

    async def heard(self, name: str, after: int, timeout_s: float) -> Trouble | None:
        return await self._forwarder.heard(name, after, timeout_s)

    async def forward(self, forwarding: Forwarding, *, anew: bool = False) -> None:
        await self._guarded(lambda: self._forwarder.forward(forwarding, anew=anew))

    async def reconnect(self) -> None:
        await self._guarded(self._forwarder.reconnect)

    async def end(self) -> None:
        await self._guarded(self._forwarder.end)

    async def _guarded(self, act: Callable[[], Awaitable[None]]) -> None:
        await self._assured()
        self._reached("command.before")
        await act()
        self._reached("command.ended")
