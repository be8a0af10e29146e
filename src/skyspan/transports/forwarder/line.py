"""Owns the SSH connection of a forwarder: made, kept alive, made anew with pauses that grow to a bound."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from skyspan.contracts.forwarding import Place, Trouble, TroubleKind
from skyspan.model.error import StageError
from skyspan.transports.forwarder.here import TroubledError
from skyspan.transports.forwarder.order import Way
from skyspan.transports.forwarder.words import connecting_failed, not_connected, not_led_on
from skyspan.transports.ssh_connect import connect

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0
_REFUSED_PAUSE_S = 60.0
"""A host that refuses our key, or shows another, is not asked more often than that in the end: it may lock us out."""

_QUICK_S = 5.0
"""Two of three attempts end after that: behind a cut the system's own repetitions lie ever further apart."""

_LIVED_S = 5.0
"""A connection that ends sooner counts as a failed attempt."""

_LEAD_TIMEOUT_S = 15.0
_CLOSE_TIMEOUT_S = 2.0


class Line:
    """The connection to the last of the way's hosts. `opened` is called with each new one, `lost` when it is gone."""

    def __init__(
        self,
        way: Way,
        keepalive: tuple[float, int],
        opened: Callable[[Any], Awaitable[None]],
        lost: Callable[[], None],
        log: Callable[[str], None],
    ) -> None:
        self.connections = 0
        self.trouble: Trouble | None = None
        self.connection: Any | None = None
        self._way, self._keepalive = way, keepalive
        self._opened, self._lost, self._log = opened, lost, log
        self._jumps: list[Any] = []
        self._hurry = asyncio.Event()

    @property
    def host(self) -> str:
        """The name of the host at the other end."""
        return self._way.hosts[-1].name

    async def keep(self) -> None:
        """Be connected, for ever."""
        failures = 0
        loop = asyncio.get_running_loop()
        while True:
            self._hurry.clear()
            began = loop.time()
            try:
                await self._connect(quick=failures % 3 != 2)
            except StageError as error:
                self.trouble = connecting_failed(error)
                self._log(f"no connection to {self.host}: {error.summary}")
            else:
                await self._while_connected()
            finally:
                self._drop()
            failures = 0 if self.trouble is None and loop.time() - began >= _LIVED_S else failures + 1
            await self._pause(failures)

    async def lead(self, target: Place) -> tuple[Any, Any]:
        """A connection from the host to `target`: a reader and a writer. Raises TroubledError."""
        import asyncssh

        connection = self.connection
        if connection is None:
            raise TroubledError(not_connected(self.host, self.trouble))
        try:
            async with asyncio.timeout(_LEAD_TIMEOUT_S):
                reader, writer = await connection.open_connection(*target, encoding=None)
        except asyncssh.ChannelOpenError as error:
            raise TroubledError(not_led_on(target, self.host, error.code, str(error.reason))) from error
        except (asyncssh.Error, OSError, TimeoutError) as error:
            broken = Trouble(TroubleKind.UNREACHABLE, f"the SSH connection to {self.host} broke", str(error))
            raise TroubledError(broken) from error
        return reader, writer

    def reconnect(self) -> None:
        """Give up the connection, and make another without a pause."""
        self._hurry.set()
        for connection in (self.connection, *self._jumps):
            if connection is not None:
                connection.abort()

    def keepalive(self, keepalive: tuple[float, int]) -> None:
        """From now on listen for signs of life in this rhythm."""
        self._keepalive = keepalive
        for connection in (self.connection, *self._jumps):
            if connection is not None:
                connection.set_keepalive(*keepalive)

    async def close(self) -> None:
        """Say goodbye to the hosts."""
        for connection in (self.connection, *reversed(self._jumps)):
            if connection is not None:
                connection.close()
                with contextlib.suppress(TimeoutError, OSError):
                    async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                        await connection.wait_closed()

    async def _connect(self, *, quick: bool) -> None:
        interval, count = self._keepalive
        timeout = self._way.ssh.connect_timeout_s
        ssh = replace(
            self._way.ssh,
            connect_timeout_s=min(_QUICK_S, timeout) if quick else timeout,
            keepalive_s=interval,
            keepalive_count=count,
        )
        last: Any | None = None
        for host in self._way.hosts:
            last = await connect(host, ssh, last)
            self._jumps.append(last)
        self.connection = self._jumps.pop()
        self.connections += 1
        self.trouble = None
        self._log(f"connected to {self.host}")

    async def _while_connected(self) -> None:
        connection = self.connection
        assert connection is not None
        opening = asyncio.ensure_future(self._opened(connection))
        try:
            await connection.wait_closed()
        finally:
            opening.cancel()
            [problem] = await asyncio.gather(opening, return_exceptions=True)
            if isinstance(problem, Exception):
                self._log(f"forwards could not be asked for: {type(problem).__name__}: {problem}")
        self._log(f"the connection to {self.host} is gone")

    def _drop(self) -> None:
        for connection in (self.connection, *reversed(self._jumps)):
            if connection is not None:
                connection.abort()
        self.connection = None
        self._jumps.clear()
        self._lost()

    async def _pause(self, failures: int) -> None:
        if failures == 0:
            return
        refused = self.trouble is not None and self.trouble.kind in {TroubleKind.HOST_KEY, TroubleKind.CREDENTIALS}
        longest = _REFUSED_PAUSE_S if refused else _LONGEST_PAUSE_S
        pause = min(longest, _FIRST_PAUSE_S * 2 ** min(failures - 1, 16)) * (0.75 + random.random() / 4)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._hurry.wait()
