"""Sockets, times and words: what the other parts are made of."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

CHUNK = 65536
LONGEST_LINE = 8192


def say(text: str) -> None:
    """Print a line."""
    os.write(1, (text + "\n").encode())


def ticks(per_second: float, seconds: float) -> Iterator[float]:
    """When to send, evenly; a tick that comes too late is left out, so that there is never a burst."""
    start, number = time.monotonic(), 0
    while number == 0 or number / per_second < seconds:
        wait = start + number / per_second - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        yield time.monotonic()
        number = max(number + 1, int((time.monotonic() - start) * per_second))


def timed_out(error: OSError) -> bool:
    """Whether nothing came in time; before Python 3.10 that was an error of the socket module's own."""
    return isinstance(error, TimeoutError) or str(error) == "timed out"


def words(error: OSError) -> str:
    """What went wrong, in one word for counting."""
    if timed_out(error):
        return "timeout"
    return (error.strerror or str(error) or type(error).__name__).lower().replace(" ", "-")


def resolved(address: str, port: int, kind: int) -> tuple[int, Any]:
    """Family and socket address of the target."""
    found = socket.getaddrinfo(address, port, 0, kind)[0]
    return found[0], found[4]


class Place:
    """The target, and how what goes there is marked: `source` is where it comes from when given, `dscp` its code point
    (RFC 2474: the upper six bits)."""

    def __init__(self, address: str, port: int, source: str, dscp: int) -> None:
        self.address, self.port = address, port
        self.source, self.dscp = source, dscp

    def reach(self, kind: int) -> tuple[Callable[[], socket.socket], Any]:
        """What opens sockets, and the socket address to connect them to; raises OSError for an unknown name."""
        family, where = resolved(self.address, self.port, kind)

        def opened() -> socket.socket:
            sock = socket.socket(family, kind)
            if self.source:
                sock.bind((self.source, 0))
            if self.dscp and family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, self.dscp << 2)
            elif self.dscp:
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, self.dscp << 2)
            return sock

        return opened, where


def exactly(sock: socket.socket, size: int) -> bytes:
    """So many bytes; fewer when the other side closes."""
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            break
        data += more
    return data


def line_of(sock: socket.socket) -> bytes:
    """What comes until the end of a line."""
    line = b""
    while not line.endswith(b"\n") and len(line) < LONGEST_LINE:
        more = sock.recv(1)
        if not more:
            break
        line += more
    return line


def drained(sock: socket.socket) -> tuple[int, float]:
    """How much comes, and for how long."""
    received, first, last = 0, 0.0, 0.0
    while True:
        data = sock.recv(CHUNK)
        if not data:
            return received, last - first
        last = time.monotonic()
        first = first or last
        received += len(data)


def pour(sock: socket.socket, seconds: float, rate: float) -> None:
    """Send for so long, at so many bit/s; 0: as fast as it goes."""
    until = time.monotonic() + seconds
    piece = b"." * (CHUNK if not rate else max(64, min(CHUNK, int(rate / 8 / 20))))
    if rate:
        for _ in ticks(rate / 8 / len(piece), seconds):
            sock.sendall(piece)
    else:
        while time.monotonic() < until:
            sock.sendall(piece)
    sock.shutdown(socket.SHUT_WR)
