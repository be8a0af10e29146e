"""Owns forwards that listen on the host: asked for anew on every connection, a refusal always told."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

from skyspan.contracts.forwarding import Forward, ForwardState, Trouble
from skyspan.transports.forwarder.tally import Tally
from skyspan.transports.forwarder.words import bind_refused, not_reached_here

_REACH_TIMEOUT_S = 10.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 10.0
_CLOSE_TIMEOUT_S = 2.0

Clear = Callable[[Any], Awaitable[bool]]
"""Ends what an earlier connection of ours left listening on the host; whether there was something to end."""


class ThereForward:
    """A forward with a listener on the host; `host` is its name."""

    def __init__(self, forward: Forward, host: str, clear: Clear) -> None:
        self.forward = forward
        self.tally = Tally()
        self._host, self._clear = host, clear
        self._listener: Any | None = None
        self._trouble: Trouble | None = None
        self._trying: asyncio.Task[None] | None = None
        # Those that have ended are let go of by the library, and so leave by themselves.
        self._sessions: weakref.WeakSet[Any] = weakref.WeakSet()

    @property
    def state(self) -> ForwardState:
        """How it is."""
        return ForwardState(self._listener is not None, self._trouble, self.tally.tried, self.tally.failed)

    async def bind(self, connection: Any) -> None:
        """Listen over this connection; where the host refuses, go on asking while the connection lasts."""
        self.lost()
        if not await self._ask(connection):
            self._trying = asyncio.create_task(self._keep_asking(connection))

    def lost(self) -> None:
        """The connection is gone, and the listener with it."""
        if self._trying is not None:
            self._trying.cancel()
            self._trying = None
        self._listener = None
        self._sessions.clear()

    async def close(self) -> None:
        """Listen no more, and end what goes through it."""
        listener, sessions = self._listener, tuple(self._sessions)
        self.lost()
        if listener is not None:
            listener.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                    await listener.wait_closed()
        for session in sessions:
            session.close()

    async def _keep_asking(self, connection: Any) -> None:
        pause = _FIRST_PAUSE_S
        while not connection.is_closed():
            await asyncio.sleep(pause)
            pause = min(_LONGEST_PAUSE_S, pause * 2)
            if await self._ask(connection):
                return

    async def _ask(self, connection: Any) -> bool:
        import asyncssh

        for last in (False, True):
            try:
                self._listener = await connection.create_server(lambda *_: self._lead(connection), *self.forward.listen)
            except (asyncssh.Error, asyncssh.ChannelListenError, OSError):
                if not last and await self._clear(connection):
                    continue
                self._trouble = bind_refused(self.forward, self._host)
                return False
            self._trouble = None
            return True
        raise AssertionError

    async def _lead(self, connection: Any) -> Any:
        """Lead a connection on that came in at the host."""
        import asyncssh

        number = self.tally.begin()
        target = self.forward.to
        assert target is not None
        try:
            async with asyncio.timeout(_REACH_TIMEOUT_S):
                session = await connection.forward_connection(*target)
        except (asyncssh.ChannelOpenError, TimeoutError) as error:
            cause = error.__context__
            reason = cause if isinstance(cause, OSError) else OSError(str(error))
            await self.tally.end(number, not_reached_here(target, reason))
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, str(reason)) from error
        self._sessions.add(session)
        await self.tally.end(number, None)
        return session
