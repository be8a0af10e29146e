"""Owns the half of a transport that observe and plan get."""

from __future__ import annotations

from skyspan.contracts.transport import Command, Completed, Connection, OnOutput, Transport
from skyspan.transports.arguments import refuse_write


class ReadOnly:
    """A `Reader` over a transport: there is no way from it to a command that writes."""

    __slots__ = ("__transport",)

    def __init__(self, transport: Transport) -> None:
        self.__transport = transport

    @property
    def name(self) -> str:
        return self.__transport.name

    async def query(self, command: Command, on_output: OnOutput | None = None) -> Completed:
        refuse_write(command)
        return await self.__transport.query(command, on_output)

    async def dial(self, address: str, port: int, timeout_s: float) -> Connection:
        return await self.__transport.dial(address, port, timeout_s)
