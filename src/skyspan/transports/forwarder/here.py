"""Owns forwards that listen on this machine, plain ones and proxies: their ports stay theirs while SSH reconnects."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from skyspan.contracts.forwarding import Forward, ForwardState, Place, Trouble
from skyspan.transports.forwarder import socks
from skyspan.transports.forwarder.relay import abort, relay
from skyspan.transports.forwarder.tally import Tally
from skyspan.transports.forwarder.words import not_listening_here

_ASK_TIMEOUT_S = 20.0
_AGAIN_S = 1.0


class TroubledError(Exception):
    """Something could not be led on."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.summary)
        self.trouble = trouble


Lead = Callable[[Place], Awaitable[tuple[Any, Any]]]
"""Opens a connection from the host to a place: a reader and a writer. Raises TroubledError."""


class HereForward:
    """A forward with a listener on this machine."""

    def __init__(self, forward: Forward, lead: Lead) -> None:
        self.forward = forward
        self.tally = Tally()
        self._lead = lead
        self._server: asyncio.Server | None = None
        self._trouble: Trouble | None = None
        self._trying: asyncio.Task[None] | None = None
        self._sessions: set[asyncio.Task[None]] = set()

    @property
    def state(self) -> ForwardState:
        """How it is."""
        return ForwardState(self._server is not None, self._trouble, self.tally.tried, self.tally.failed)

    async def open(self) -> None:
        """Listen; where that cannot be, go on trying."""
        if not await self._listen():
            self._trying = asyncio.create_task(self._keep_trying())

    async def close(self) -> None:
        """Listen no more, and end what goes through it."""
        if self._trying is not None:
            self._trying.cancel()
        if self._server is not None:
            self._server.close()
            self._server = None
        for session in tuple(self._sessions):
            session.cancel()
        if self._sessions:
            await asyncio.wait(self._sessions, timeout=1.0)

    async def _keep_trying(self) -> None:
        while True:
            await asyncio.sleep(_AGAIN_S)
            if await self._listen():
                return

    async def _listen(self) -> bool:
        address, port = self.forward.listen
        try:
            self._server = await asyncio.start_server(self._accepted, address, port)
        except OSError as error:
            self._trouble = not_listening_here(self.forward.listen, error)
            return False
        self._trouble = None
        return True

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._sessions.add(task)
        try:
            await self._serve(reader, writer)
        except asyncio.CancelledError:
            # The forward goes: the end of its sessions is no failure of this task.
            abort(writer)
        finally:
            self._sessions.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        target = self.forward.to
        if target is None:
            try:
                async with asyncio.timeout(_ASK_TIMEOUT_S):
                    target = await socks.asked(reader, writer)
            except (socks.NotSocksError, TimeoutError) as error:
                await _say_last(writer, getattr(error, "answer", b""))
                return
        number = self.tally.begin()
        try:
            far = await self._lead(target)
        except TroubledError as error:
            await self.tally.end(number, error.trouble)
            if self.forward.to is None:
                await _say_last(writer, socks.refused(error.trouble))
            else:
                abort(writer)
            return
        await self.tally.end(number, None)
        if self.forward.to is None:
            writer.write(socks.connected())
        await relay((reader, writer), far)


async def _say_last(writer: asyncio.StreamWriter, words: bytes) -> None:
    with contextlib.suppress(OSError):
        writer.write(words)
        writer.close()
        await writer.wait_closed()
