"""Owns commands and connections of a host reached by SSH: one connection, many sessions, renewed when it died."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import Any

from skyspan.contracts.host import Host
from skyspan.contracts.transport import Command, Completed, Connection, OnOutput
from skyspan.model.error import UnreachableError
from skyspan.transports import tcp
from skyspan.transports.arguments import refuse_write
from skyspan.transports.remote_process import RemoteProcess
from skyspan.transports.running import to_the_end
from skyspan.transports.ssh_connect import SshSettings, connect, through_channel


class SshTransport:
    """The machine behind `host` (a `Transport`). `jump` is the transport of the host to go through."""

    def __init__(self, host: Host, settings: SshSettings, jump: SshTransport | None = None) -> None:
        self._host = host
        self._settings = settings
        self._jump = jump
        self._open: Any | None = None
        self._opening = asyncio.Lock()
        self._sessions = asyncio.Semaphore(settings.sessions)
        self._remnants: list[str] = []

    @property
    def name(self) -> str:
        return self._host.name

    async def query(self, command: Command, on_output: OnOutput | None = None) -> Completed:
        refuse_write(command)
        return await self.run(command, on_output)

    async def run(self, command: Command, on_output: OnOutput | None = None) -> Completed:
        async with self._sessions:
            process = await self._begin(command, on_output)
            try:
                return await to_the_end(process, command.timeout_s)
            finally:
                if process.remnant is not None:
                    self._remnants.append(process.remnant)

    async def dial(self, address: str, port: int, timeout_s: float) -> Connection:
        import asyncssh

        where = f"{address} port {port} (from {self.name})"
        connection = await self.connection()
        try:
            async with asyncio.timeout(timeout_s):
                reader, writer = await connection.open_connection(address, port, encoding=None)
        except TimeoutError as error:
            raise tcp.no_answer(where, timeout_s) from error
        except asyncssh.ChannelOpenError as error:
            raise through_channel(where, error) from error
        except (asyncssh.Error, OSError) as error:
            raise UnreachableError(f"the connection to {self.name} broke while dialling {where}") from error
        return _ForwardedConnection(reader, writer)

    async def close(self) -> None:
        connection, self._open = self._open, None
        if connection is not None:
            connection.close()
            with contextlib.suppress(Exception):
                async with asyncio.timeout(self._settings.connect_timeout_s):
                    await connection.wait_closed()

    async def connection(self) -> Any:
        """The live `asyncssh.SSHClientConnection`, made on first use and again after it died.

        Nothing new starts before the commands that ran on the dead one are proven to have ended."""
        async with self._opening:
            if self._open is None or self._open.is_closed():
                tunnel = await self._jump.connection() if self._jump is not None else None
                self._open = await connect(self._host, self._settings, tunnel)
            while self._remnants:
                await self._end_remnant(self._open, self._remnants[-1])
                self._remnants.pop()
            return self._open

    async def _end_remnant(self, connection: Any, line: str) -> None:
        import asyncssh

        try:
            done = await connection.run(line, encoding=None)
        except (asyncssh.Error, OSError) as error:
            raise UnreachableError(f"the connection to {self.name} broke again", detail=str(error)) from error
        if done.exit_status != 0:
            raise UnreachableError(
                f"a command that a broken connection left running on {self.name} cannot be stopped",
                hint="end it by hand, then try again",
            )

    async def _begin(self, command: Command, on_output: OnOutput | None) -> RemoteProcess:
        """Start `command`, on a new connection when the old one turns out to be dead before anything was started."""
        import asyncssh

        for last in (False, True):
            connection = await self.connection()
            process = RemoteProcess(self.name, partial(self._control, connection), command, on_output)
            try:
                await process.begin(connection)
            except (asyncssh.Error, OSError) as error:
                if last or not connection.is_closed():
                    raise UnreachableError(
                        f"{self.name} opened no session for `{command.display()}`",
                        detail=str(error),
                        hint="sshd may allow too few sessions (MaxSessions)",
                    ) from error
            else:
                return process
        raise AssertionError

    async def _control(self, connection: Any, line: str) -> None:
        """Run `line` beside the commands of `connection`; over a new one when the server admits no more sessions."""
        import asyncssh

        if connection.is_closed():
            # Whatever runs there is out of reach until the host is back, and a signal would come late or never.
            return
        try:
            await connection.run(line, encoding=None)
        except (asyncssh.Error, OSError):
            tunnel = await self._jump.connection() if self._jump is not None else None
            another = await connect(self._host, self._settings, tunnel)
            with contextlib.suppress(asyncssh.Error, OSError):
                await another.run(line, encoding=None)
            another.close()


class _ForwardedConnection:
    """A TCP connection made by the host's sshd (a `contracts.transport.Connection`)."""

    def __init__(self, reader: Any, writer: Any) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        import asyncssh

        try:
            self._writer.write(data)
            await self._writer.drain()
        except (asyncssh.Error, OSError) as error:
            raise tcp.broken(error) from error

    async def receive(self, limit: int = 65536) -> bytes:
        import asyncssh

        try:
            data: bytes = await self._reader.read(limit)
        except (asyncssh.Error, OSError) as error:
            raise tcp.broken(error) from error
        return data

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(Exception):
            await self._writer.wait_closed()
