"""What answers at an end: TCP connections that say what they want in their first line, datagrams that go back."""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
import threading
import time

from skyspan.providers.traffic.shipped.wire import CHUNK, drained, exactly, line_of, pour, resolved, say

IN_USE, NO_SUCH_ADDRESS = "Address already in use", "Cannot assign requested address"


def bound(kind: int, address: str, port: int) -> socket.socket:
    """A socket at the address; at all of them, both IP versions where there are two, without one."""
    if address:
        family, place = resolved(address, port, kind)
    else:
        both = os.access("/proc/net/if_inet6", os.R_OK)
        family, place = (socket.AF_INET6, ("::", port)) if both else (socket.AF_INET, ("", port))
    sock = socket.socket(family, kind)
    if kind == socket.SOCK_STREAM:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1 if address else 0)
    sock.bind(place)
    return sock


def listen(address: str, port: int, size: int, lifetime: float) -> None:
    """Answer TCP and UDP at the port until ended, or until `lifetime` is over (0: never)."""
    try:
        stream, datagrams = bound(socket.SOCK_STREAM, address, port), bound(socket.SOCK_DGRAM, address, port)
    except OSError as error:
        said = {errno.EADDRINUSE: IN_USE, errno.EADDRNOTAVAIL: NO_SUCH_ADDRESS}
        say("cannot listen: " + said.get(error.errno or 0, str(error)))
        sys.exit(1)
    stream.listen(128)
    if lifetime:
        timer = threading.Timer(lifetime, os._exit, (0,))
        timer.daemon = True
        timer.start()
    threading.Thread(target=accepting, args=(stream, size), daemon=True).start()
    say(f"listening on {port}")
    answering(datagrams)


def accepting(server: socket.socket, size: int) -> None:
    """Take connections, each in a thread."""
    while True:
        sock, _ = server.accept()
        threading.Thread(target=serving, args=(sock, size), daemon=True).start()


def serving(sock: socket.socket, size: int) -> None:
    """One connection: its first line says what is wanted."""
    with sock:
        try:
            sock.settimeout(60)
            what = line_of(sock).split()
            if what[:1] == [b"echo"]:
                while True:
                    data = exactly(sock, int(what[1]))
                    if not data:
                        return
                    sock.sendall(data)
            elif what[:1] == [b"sink"]:
                received, took = drained(sock)
                sock.sendall(b"%d %.6f\n" % (received, took))
            elif what[:1] == [b"source"]:
                pour(sock, float(what[1]), float(what[2]))
            elif what[:1] in ([b"GET"], [b"HEAD"]):
                page(sock, size)
        except (OSError, ValueError, IndexError):
            return


def page(sock: socket.socket, size: int) -> None:
    """A page of so many bytes (RFC 9112)."""
    while line_of(sock).strip():
        pass
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
    sock.sendall(head.encode() + b"." * size)


def answering(sock: socket.socket) -> None:
    """Send datagrams back; those of a stream are counted instead, and `R` asks for the count."""
    streams: dict[bytes, list[float]] = {}
    while True:
        data, where = sock.recvfrom(CHUNK)
        now = time.monotonic()
        if data[:1] == b"D" and len(data) >= 25:
            tally(streams.setdefault(data[1:9], [0.0, 0.0, 0.0, 0.0, now, now]), data, now)
            while len(streams) > 1000:
                del streams[next(iter(streams))]
            continue
        if data[:1] == b"R":
            counted = streams.get(data[1:9], [0.0] * 6)
            took = counted[5] - counted[4]
            text = f"{counted[0]:.0f} {counted[1]:.0f} {counted[2] * 1000:.6f} {took:.6f}"
            data = data[:9] + text.encode()
        try:
            sock.sendto(data, where)
        except OSError:
            continue


def tally(counted: list[float], data: bytes, now: float) -> None:
    """Datagrams, bytes, jitter, the last transit time, the first and the last arrival (RFC 3550 section 6.4.1)."""
    transit = now - struct.unpack("!d", data[17:25])[0]
    if counted[0]:
        counted[2] += (abs(transit - counted[3]) - counted[2]) / 16
    counted[0] += 1
    counted[1] += len(data)
    counted[3], counted[5] = transit, now
