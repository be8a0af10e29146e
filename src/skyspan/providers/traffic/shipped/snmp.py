"""SNMP, versions 1 and 2c (RFC 1157, RFC 3416), in BER (X.690)."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from typing import Any

from skyspan.providers.traffic.shipped.wire import CHUNK, Place, say


def tlv(tag: int, body: bytes) -> bytes:
    """One element."""
    if len(body) < 128:
        return bytes([tag, len(body)]) + body
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes([tag, 128 + len(size)]) + size + body


def number_of(value: int) -> bytes:
    """A number that is not negative."""
    return tlv(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def oid_of(numbers: tuple[int, ...]) -> bytes:
    """An object identifier."""
    body = b""
    for number in (numbers[0] * 40 + numbers[1], *numbers[2:]):
        part = bytes([number & 127])
        while number > 127:
            number >>= 7
            part = bytes([128 | number & 127]) + part
        body += part
    return tlv(6, body)


def elements(data: bytes) -> list[tuple[int, bytes]]:
    """The elements of a body; raises IndexError or ValueError for what is none."""
    found, at = [], 0
    while at < len(data):
        tag, size, at = data[at], data[at + 1], at + 2
        if size > 127:
            count = size - 128
            size, at = int.from_bytes(data[at : at + count], "big"), at + count
        if at + size > len(data):
            raise ValueError("cut off")
        found.append((tag, data[at : at + size]))
        at += size
    return found


def numbers_in(body: bytes) -> tuple[int, ...]:
    """An object identifier read."""
    numbers, value = [], 0
    for octet in body:
        value = value << 7 | octet & 127
        if octet < 128:
            numbers.append(value)
            value = 0
    return (min(numbers[0] // 40, 2), numbers[0] - 40 * min(numbers[0] // 40, 2), *numbers[1:])


def question(version: int, community: bytes, following: bool, number: int, oid: tuple[int, ...]) -> bytes:
    """GetRequest, or GetNextRequest for what follows."""
    pair = tlv(48, tlv(48, oid_of(oid) + tlv(5, b"")))
    pdu = tlv(161 if following else 160, number_of(number) + number_of(0) + number_of(0) + pair)
    return tlv(48, number_of(version) + tlv(4, community) + pdu)


def answer(data: bytes) -> tuple[int, int, tuple[int, ...], int]:
    """Number of the request, error status, the object and the type of its value; raises as `elements`."""
    _, _, (_, pdu) = elements(elements(data)[0][1])
    (_, number), (_, status), _, (_, pairs) = elements(pdu)
    (_, oid), (tag, _) = elements(elements(pairs)[0][1])
    return int.from_bytes(number, "big"), int.from_bytes(status, "big"), numbers_in(oid), tag


def ask_snmp(
    place: Place, *, community: str, version: int, oid: tuple[int, ...], walk: bool, timeout: float
) -> Callable[[], None]:
    """What asks one time: for the object, or for the next one of a walk."""
    sock_of, where = place.reach(socket.SOCK_DGRAM)
    sock = sock_of()
    sock.connect(where)
    state: dict[str, Any] = {"number": int.from_bytes(os.urandom(2), "big"), "at": oid}

    def ask() -> None:
        state["number"] += 1
        begun = time.monotonic()
        sock.send(question(version, community.encode(), walk, state["number"], state["at"]))
        while True:
            left = begun + timeout - time.monotonic()
            if left <= 0:
                raise TimeoutError
            sock.settimeout(left)
            try:
                number, status, found, tag = answer(sock.recv(CHUNK))
            except (ValueError, IndexError):
                continue
            if number == state["number"]:
                break
        took = (time.monotonic() - begun) * 1000
        outside = found[: len(oid)] != oid or tag == 130
        if walk:
            # At the end of the subtree it begins again; in version 1 an agent says noSuchName (2) at the very end.
            ended = outside or status == 2
            if ended and state["at"] == oid:
                raise OSError("nothing below the object")
            state["at"] = oid if ended else found
        elif status or tag in (128, 129):
            raise OSError("no such object")
        say(f"rtt {took:.4f}")

    return ask
