"""As much as passes, over TCP or as datagrams: where iperf3 is not there."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time

from skyspan.providers.traffic.shipped.wire import CHUNK, Place, drained, line_of, pour, say, ticks, words


def stream_tcp(place: Place, *, seconds: float, rate: float, parallel: int, reverse: bool) -> None:
    """As much as passes, in several connections; what counts is what arrived."""
    sock_of, where = place.reach(socket.SOCK_STREAM)
    totals: list[tuple[int, float]] = []

    def one() -> None:
        with sock_of() as sock:
            try:
                sock.settimeout(seconds + 10)
                sock.connect(where)
                if reverse:
                    sock.sendall(b"source %f %f\n" % (seconds, rate / parallel))
                    totals.append(drained(sock))
                else:
                    sock.sendall(b"sink\n")
                    pour(sock, seconds, rate / parallel)
                    received, took = line_of(sock).split()
                    totals.append((int(received), float(took)))
            except (OSError, ValueError) as error:
                say("error " + (words(error) if isinstance(error, OSError) else "closed-early"))

    threads = [threading.Thread(target=one, daemon=True) for _ in range(parallel)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    say(f"streamed {sum(total for total, _ in totals)}")
    say(f"seconds {max([took for _, took in totals] or [0.0]):.6f}")


def stream_udp(place: Place, *, seconds: float, rate: float, size: int) -> None:
    """Datagrams at a rate; the other side counts, and is asked at the end."""
    sock_of, where = place.reach(socket.SOCK_DGRAM)
    sock = sock_of()
    sock.connect(where)
    session, number = os.urandom(8), 0
    for now in ticks(rate / 8 / size, seconds):
        number += 1
        try:
            sock.send(b"D" + session + struct.pack("!Qd", number, now) + b"." * (size - 25))
        except OSError as error:
            say("error " + words(error))
    sock.settimeout(0.3)
    for _ in range(20):
        try:
            sock.send(b"R" + session)
            answer = sock.recv(CHUNK)
        except OSError:
            time.sleep(0.05)
            continue
        if answer[:9] == b"R" + session:
            arrived, octets, jitter, took = answer[9:].split()
            say(f"datagrams {number} {int(arrived)}")
            say(f"streamed {int(octets)}")
            say(f"jitter {jitter.decode()}")
            say(f"seconds {max(float(took), seconds):.6f}")
            return
    say("error no-report-from-the-other-end")
