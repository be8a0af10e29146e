"""Owns a stage's own say in how patiently its commands are stopped."""

from __future__ import annotations

from dataclasses import replace

from skyspan.contracts.transport import Command, Completed, Connection, OnOutput, StopLadder, Transport


class LadderedTransport:
    """A `Transport` whose commands are stopped by `ladder` instead of the one that their provider gave them."""

    __slots__ = ("_ladder", "_transport")

    def __init__(self, transport: Transport, ladder: StopLadder) -> None:
        self._transport, self._ladder = transport, ladder

    @property
    def name(self) -> str:
        return self._transport.name

    async def query(self, command: Command, on_output: OnOutput | None = None) -> Completed:
        return await self._transport.query(command, on_output)

    async def dial(self, address: str, port: int, timeout_s: float) -> Connection:
        return await self._transport.dial(address, port, timeout_s)

    async def run(self, command: Command, on_output: OnOutput | None = None) -> Completed:
        return await self._transport.run(replace(command, ladder=self._ladder), on_output)

    async def close(self) -> None:
        await self._transport.close()
