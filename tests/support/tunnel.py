"""A tunnel through a real sshd on loopback: its stage, driven as the engine does it, and what stands at both ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.support.sshd import USER, Sshd, free_port

from skyspan.contracts.host import Host
from skyspan.model.change import Change, Observation
from skyspan.model.secret import Secret
from skyspan.networks.sshtunnel.provider import SshTunnelProvider
from skyspan.networks.sshtunnel.spec import SshTunnelSpec
from skyspan.testing.provider_world import ProviderWorld
from skyspan.transports.forwarder.control import StageForwarder, forwarder_folder
from skyspan.transports.keeper.identity import alive, began
from skyspan.transports.local import LocalTransport
from skyspan.transports.ssh import SshTransport
from skyspan.transports.ssh_connect import SshSettings

ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
SSH = SshSettings(connect_timeout_s=10)
HERE = "127.0.0.1"


@asynccontextmanager
async def echo() -> AsyncIterator[int]:
    """A service that says back what it hears; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, HERE, 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


async def said_back(port: int, words: bytes = b"hello") -> bytes:
    """What comes back of `words` through `port`; nothing when the connection breaks."""
    try:
        async with asyncio.timeout(10), connected(port) as (reader, writer):
            writer.write(words)
            writer.write_eof()
            return await reader.read()
    except OSError:
        return b""


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to a port of this machine."""
    reader, writer = await asyncio.open_connection(HERE, port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@dataclass
class Session:
    """An open connection to an echoing service."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def works(self) -> bool:
        """Whether a word still comes back."""
        try:
            async with asyncio.timeout(5):
                self.writer.write(b"still here\n")
                return await self.reader.readline() == b"still here\n"
        except OSError:
            return False


@dataclass
class Tunnel:
    """One ssh-tunnel stage. Ports are chosen by name once; `home` is where its forwarder has its files."""

    root: Path
    sshd: Sshd
    ports: dict[str, int] = field(default_factory=dict)
    provider: SshTunnelProvider = field(default_factory=SshTunnelProvider)

    def __post_init__(self) -> None:
        key = Secret((self.sshd.folder / "user_key").read_text())
        host = Host("box", HERE, port=self.sshd.port, user=USER, key=key, host_key=self.sshd.host_key)
        self.home = self.root / "home"
        self.home.mkdir()
        self.here = LocalTransport(ENV)
        self.reach(host)

    def reach(self, host: Host) -> None:
        """From now on the host is this one."""
        self.host = host
        self.box = SshTransport(host, SSH)
        world = ProviderWorld(self.root, {None: self.here, "box": self.box}, hosts={"box": host})
        known = getattr(self, "world", None)
        self.world = replace(world, kept=known.kept) if known is not None else world
        self.folder = forwarder_folder(self.home, world.address)
        self.world.forwarder = self.forwarder = StageForwarder(self.folder, {"box": host}, SSH)

    def port(self, name: str) -> int:
        """The port called so."""
        return self.ports.setdefault(name, free_port())

    def spec(self, forwards: dict[str, Any], **more: Any) -> SshTunnelSpec:
        """Settings with these forwards."""
        return SshTunnelSpec.model_validate({"through": "box", "forwards": forwards, "ready_within": 10} | more)

    def local(self, name: str, to: int, **more: Any) -> dict[str, Any]:
        """A local forward on the port of its name."""
        return {name: {"local": {"listen": f"{HERE}:{self.port(name)}", "to": f"{HERE}:{to}"} | more}}

    def remote(self, name: str, to: int, **more: Any) -> dict[str, Any]:
        """A remote forward on the port of its name."""
        return {name: {"remote": {"listen": f"{HERE}:{self.port(name)}", "to": f"{HERE}:{to}"} | more}}

    def dynamic(self, name: str, to: int | None = None) -> dict[str, Any]:
        """A proxy on the port of its name."""
        probe = {"probe": f"localhost:{to}"} if to is not None else {}
        return {name: {"dynamic": {"listen": f"{HERE}:{self.port(name)}"} | probe}}

    async def look(self, spec: SshTunnelSpec) -> tuple[Observation, Change]:
        """What is there and what would be done."""
        ctx = self.world.reading()
        seen = await self.provider.observe(spec, ctx)
        return seen, await self.provider.plan(spec, seen, ctx)

    async def up(self, spec: SshTunnelSpec) -> Observation:
        """Apply what is planned."""
        seen, change = await self.look(spec)
        return await self.provider.apply(spec, change, self.world.writing()) if change.action.changes else seen

    async def down(self) -> None:
        """Destroy it."""
        await self.provider.destroy(self.spec(self.local("any", 1)), self.world.writing())

    def processes(self) -> dict[int, str]:
        """The forwarders of this home by id, with their start times."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):
                    if str(self.home).encode() in (entry / "cmdline").read_bytes():
                        since = began(int(entry.name))
                        if since:
                            found[int(entry.name)] = since
        return found

    def listening(self) -> set[str]:
        """Which of the named ports somebody listens on."""
        text = Path("/proc/net/tcp").read_text()
        taken = {int(line.split()[1][-4:], 16) for line in text.splitlines()[1:] if line.split()[3] == "0A"}
        return {name for name, port in self.ports.items() if port in taken}

    def state(self) -> tuple[Any, ...]:
        """Processes, listening ports and files, to compare."""
        return len(self.processes()), self.listening(), sorted(str(path) for path in self.home.rglob("*"))

    def kill(self, number: int) -> None:
        """Signal the forwarder."""
        [pid] = self.processes()
        os.kill(pid, number)

    async def until_dead(self, processes: dict[int, str]) -> None:
        """Wait until none of them runs."""
        async with asyncio.timeout(10):
            while any(alive(pid, since) for pid, since in processes.items()):
                await asyncio.sleep(0.02)

    async def close(self) -> None:
        """Leave nothing behind."""
        await self.forwarder.end()
        await self.box.close()
