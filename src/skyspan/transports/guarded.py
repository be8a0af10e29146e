"""Owns the last check before a host is changed: that the lease is still held."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from skyspan.contracts.transport import Command, Completed, Connection, Effect, OnOutput, Transport


class GuardedTransport:
    """A `Transport` that asks `assured` before each command that writes; that one raises FencedError when the lease
    was taken over, and then nothing is sent. `reached` is told of the crash points around it."""

    __slots__ = ("_assured", "_reached", "_transport")

    def __init__(
        self, transport: Transport, assured: Callable[[], Awaitable[None]], reached: Callable[[str], None]
    ) -> None:
        self._transport, self._assured, self._reached = transport, assured, reached

    @property
    def name(self) -> str:
        return self._transport.name

    async def query(self, command: Command, on_output: OnOutput | None = None) -> Completed:
        return await self._transport.query(command, on_output)

    async def dial(self, address: str, port: int, timeout_s: float) -> Connection:
        return await self._transport.dial(address, port, timeout_s)

    async def run(self, command: Command, on_output: OnOutput | None = None) -> Completed:
        if command.effect is Effect.READ:
            return await self._transport.run(command, on_output)
        await self._assured()
        self._reached("command.before")
        done = await self._transport.run(command, on_output)
        self._reached("command.ended")
        return done

    async def close(self) -> None:
        await self._transport.close()
