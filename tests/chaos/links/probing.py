"""Asks a machine again and again, and prints when each question was asked that got an answer.

Standard library only and run by path: it knows nothing of Skyspan. Arguments: who asks (a network namespace or `here`),
then `ping ADDRESS`, `tcp ADDRESS:PORT`, or `socks ADDRESS:PORT PROXY:PORT`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import struct
import sys
import time
from pathlib import Path

PING_S, CONNECT_S = 0.05, 0.1
"""Between two pings; between two connections, each of which starts several tasks of the forwarder."""

WITHIN_S = 1.0
"""A connection without an answer is given up after that."""

_QUESTION = b"HEAD / HTTP/1.0\r\n\r\n"


def enter(place: str) -> bool:
    """Be in the namespace, which is another after a reboot; whether it had to be changed."""
    if place == "here":
        return False
    with contextlib.suppress(OSError), Path(f"/run/netns/{place}").open("rb") as there:
        if not os.path.samestat(os.fstat(there.fileno()), Path("/proc/thread-self/ns/net").stat()):
            return bool(ctypes.CDLL(None).setns(there.fileno(), 0) == 0)
    return False


def ping(place: str, target: str) -> None:
    """Send an ICMP echo every PING_S, for ever."""
    enter(place)
    wire = _wire()
    mine, due = os.getpid() & 0xFFFF, time.monotonic()
    while True:
        wait = due - time.monotonic()
        if wait <= 0:
            if enter(place):
                wire = _wire()
            due = max(due + PING_S, time.monotonic() - 1)
            body = struct.pack("!d", time.monotonic())
            head = struct.pack("!BBHHH", 8, 0, 0, mine, 0)
            with contextlib.suppress(OSError):
                wire.sendto(struct.pack("!BBHHH", 8, 0, _sum(head + body), mine, 0) + body, (target, 0))
            continue
        wire.settimeout(wait)
        try:
            heard = wire.recv(200)[20:]
        except TimeoutError:
            continue
        if len(heard) >= 16 and heard[0] == 0 and struct.unpack("!H", heard[4:6])[0] == mine:
            print(struct.unpack("!d", heard[8:16])[0], flush=True)


def _wire() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)


def _sum(data: bytes) -> int:
    """The checksum of RFC 1071."""
    words: tuple[int, ...] = struct.unpack(f"!{len(data) // 2}H", data)
    total = sum(words)
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


async def connect(place: str, target: str, proxy: str = "") -> None:
    """Connect every CONNECT_S, for ever, however long those before take."""
    running: set[asyncio.Task[None]] = set()
    due = time.monotonic()
    while True:
        enter(place)
        task = asyncio.create_task(_asked(target, proxy))
        running.add(task)
        task.add_done_callback(running.discard)
        due = max(due + CONNECT_S, time.monotonic())
        await asyncio.sleep(due - time.monotonic())


async def _asked(target: str, proxy: str) -> None:
    asked = time.monotonic()
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        async with asyncio.timeout(WITHIN_S):
            reader, writer = await asyncio.open_connection(*_place(proxy or target))
            try:
                if proxy:
                    await _led_on(reader, writer, target)
                writer.write(_QUESTION)
                if b" 200 " in await reader.readline():
                    print(asked, flush=True)
            finally:
                writer.transport.abort()


async def _led_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: str) -> None:
    """Ask a SOCKS5 proxy (RFC 1928) for a connection to an IPv4 address."""
    address, port = _place(target)
    writer.write(b"\x05\x01\x00")
    await reader.readexactly(2)
    writer.write(b"\x05\x01\x00\x01" + socket.inet_aton(address) + port.to_bytes(2, "big"))
    if (await reader.readexactly(10))[1] != 0:
        raise ConnectionRefusedError(target)


def _place(text: str) -> tuple[str, int]:
    address, _, port = text.rpartition(":")
    return address, int(port)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        who, by, *words = sys.argv[1:]
        if by == "ping":
            ping(who, *words)
        else:
            asyncio.run(connect(who, *words))
