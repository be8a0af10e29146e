"""Owns what a forwarder does: the forwards it was told, over its one connection, and the answers to who asks."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from skyspan.contracts.forwarding import Forward, ForwarderState, Forwarding, ForwardKind, Trouble, TroubleKind
from skyspan.transports.forwarder.here import HereForward
from skyspan.transports.forwarder.line import Line
from skyspan.transports.forwarder.order import Way, forwarding_of, state_record, trouble_record
from skyspan.transports.forwarder.stale import Sessions
from skyspan.transports.forwarder.there import ThereForward

Message = dict[str, Any]


class Forwarder:
    """The forwards of one stage. `over` is set when it is to end."""

    def __init__(self, way: Way, forwarding: Forwarding, folder: Path, log: Callable[[str], None]) -> None:
        self.over = asyncio.Event()
        self._way, self._forwarding, self._log = way, forwarding, log
        self._line = Line(way, (forwarding.keepalive_s, forwarding.keepalive_count), self._opened, self._lost, log)
        self._sessions = Sessions(folder / "sessions")
        self._forwards: dict[str, HereForward | ThereForward] = {}
        self._changing = asyncio.Lock()

    async def run(self) -> None:
        """Forward until it is over."""
        for forward in self._forwarding.forwards:
            await self._add(forward)
        keeping = asyncio.create_task(self._line.keep())
        over = asyncio.create_task(self.over.wait())
        try:
            await asyncio.wait({keeping, over}, return_when=asyncio.FIRST_COMPLETED)
            if keeping.done():
                await keeping
        finally:
            over.cancel()
            async with self._changing:
                await asyncio.gather(*(item.close() for item in self._forwards.values()))
            await self._line.close()
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    async def answer(self, message: Message) -> Message:
        """Do what a request says."""
        match message["op"]:
            case "look":
                return {"state": state_record(self._state()), "way": self._way.digest()}
            case "set":
                await self._set(forwarding_of(message["forwarding"]))
            case "heard":
                return {"trouble": trouble_record(await self._heard(message))}
            case "reconnect":
                self._line.reconnect()
            case "end":
                self.over.set()
        return {}

    def _state(self) -> ForwarderState:
        line = self._line
        forwards = {name: item.state for name, item in self._forwards.items()}
        return ForwarderState(
            self._forwarding, True, line.connection is not None, line.connections, line.trouble, forwards
        )

    async def _set(self, forwarding: Forwarding) -> None:
        async with self._changing:
            wanted = {forward.name: forward for forward in forwarding.forwards}
            leaving = [name for name, item in self._forwards.items() if item.forward != wanted.get(name)]
            # All at once, and before any is added: a port may pass from one forward to another.
            await asyncio.gather(*(self._forwards.pop(name).close() for name in leaving))
            self._forwarding = forwarding
            self._line.keepalive((forwarding.keepalive_s, forwarding.keepalive_count))
            for name, forward in wanted.items():
                if name not in self._forwards:
                    await self._add(forward)
            if leaving or len(wanted) != len(self._forwards):
                self._log(f"forwards now: {', '.join(wanted)}")

    async def _add(self, forward: Forward) -> None:
        if forward.kind is ForwardKind.REMOTE:
            there = ThereForward(forward, self._line.host, self._sessions.end_earlier)
            self._forwards[forward.name] = there
            if self._line.connection is not None:
                await self._sessions.remember(self._line.connection)
                await there.bind(self._line.connection)
        else:
            here = HereForward(forward, self._line.lead)
            self._forwards[forward.name] = here
            await here.open()

    async def _opened(self, connection: Any) -> None:
        async with self._changing:
            theirs = [item for item in self._forwards.values() if isinstance(item, ThereForward)]
            if theirs:
                await self._sessions.remember(connection)
            # One after the other: the first that is refused clears away what earlier connections left.
            for item in theirs:
                await item.bind(connection)

    def _lost(self) -> None:
        for item in self._forwards.values():
            if isinstance(item, ThereForward):
                item.lost()

    async def _heard(self, message: Message) -> Trouble | None:
        item = self._forwards.get(message["name"])
        if item is None:
            return Trouble(TroubleKind.UNREACHABLE, f"the forwarder has no forward {message['name']}")
        try:
            async with asyncio.timeout(message["timeout_s"]):
                return await item.tally.heard(message["after"])
        except TimeoutError:
            words = f"nothing came of a connection to {message['name']} in {message['timeout_s']:g} s"
            return Trouble(TroubleKind.UNREACHABLE, words, hint="is the way to the host cut, or its target silent?")


async def attend(forwarder: Forwarder, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request of one connection."""
    with contextlib.suppress(OSError, ValueError):
        message = json.loads(await reader.readline())
        answer = await forwarder.answer(message)
        writer.write(json.dumps(answer).encode() + b"\n")
        await writer.drain()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
