"""Single requests, each timed: TCP connections, web pages, datagrams."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable

from skyspan.providers.traffic.shipped.wire import CHUNK, Place, exactly, line_of, say, ticks, timed_out, words


def ask_tcp(place: Place, *, echo: bool, size: int, timeout: float) -> None:
    """One connection, and over it one request with its answer; without `echo` the connection is the answer."""
    sock_of, where = place.reach(socket.SOCK_STREAM)
    with sock_of() as sock:
        sock.settimeout(timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        begun = time.monotonic()
        sock.connect(where)
        took = (time.monotonic() - begun) * 1000
        say(f"connect {took:.4f}")
        if echo:
            begun = time.monotonic()
            sock.sendall(b"echo %d\n" % size + b"." * size)
            if len(exactly(sock, size)) < size:
                raise OSError("closed early")
            took = (time.monotonic() - begun) * 1000
        say(f"rtt {took:.4f}")


def ask_http(place: Place, *, path: str, timeout: float, tls: int) -> None:
    """One request; the time is that from connecting to the end of the answer. `tls` 1 verifies, 2 does not."""
    sock_of, where = place.reach(socket.SOCK_STREAM)
    with sock_of() as plain:
        plain.settimeout(timeout)
        begun = time.monotonic()
        plain.connect(where)
        say(f"connect {((time.monotonic() - begun) * 1000):.4f}")
        sock = encrypted(plain, place.address, tls) if tls else plain
        host = f"[{place.address}]" if ":" in place.address else place.address
        head = f"GET {path} HTTP/1.1\r\nHost: {host}:{place.port}\r\nUser-Agent: skyspan\r\nConnection: close\r\n\r\n"
        sock.sendall(head.encode())
        status = line_of(sock).split()
        if len(status) < 2 or not status[0].startswith(b"HTTP/") or not status[1].isdigit():
            raise OSError("no HTTP")
        received = 0
        while True:
            data = sock.recv(CHUNK)
            if not data:
                break
            received += len(data)
            if time.monotonic() - begun > timeout:
                raise TimeoutError
        say(f"status {status[1].decode()}")
        if status[1][:1] in (b"2", b"3"):
            say(f"rtt {((time.monotonic() - begun) * 1000):.4f}")
            say(f"bytes {received}")


def encrypted(sock: socket.socket, name: str, tls: int) -> socket.socket:
    """The same over TLS."""
    import ssl

    context = ssl.create_default_context()
    if tls == 2:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(sock, server_hostname=name)


def ask_often(ask: Callable[[], None], per_second: float, seconds: float) -> None:
    """Ask at this rate, and count what goes wrong."""
    for _ in ticks(per_second, seconds):
        say("sent 1")
        try:
            ask()
        except OSError as error:
            say("error " + words(error))


def echo_udp(place: Place, *, size: int, per_second: float, seconds: float, timeout: float) -> None:
    """Datagrams that come back; each may take `timeout`, and the next one does not wait for it."""
    sock_of, where = place.reach(socket.SOCK_DGRAM)
    sock = sock_of()
    sock.settimeout(0.02)
    sock.connect(where)
    left: dict[int, float] = {}
    done = threading.Event()

    def receive() -> None:
        while not done.is_set():
            try:
                data = sock.recv(CHUNK)
            except OSError as error:
                if not timed_out(error):
                    say("error " + words(error))
                continue
            begun = left.pop(struct.unpack("!Q", data[1:9])[0], None) if len(data) >= 9 else None
            took = time.monotonic() - begun if begun is not None else timeout + 1
            if took <= timeout:
                say(f"rtt {(took * 1000):.4f}")

    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    for number, now in enumerate(ticks(per_second, seconds), 1):
        left[number] = now
        say("sent 1")
        try:
            sock.send(b"E" + struct.pack("!Q", number) + b"." * (size - 9))
        except OSError as error:
            say("error " + words(error))
    until = time.monotonic() + timeout
    while left and time.monotonic() < until:
        time.sleep(0.005)
    done.set()
    thread.join()
