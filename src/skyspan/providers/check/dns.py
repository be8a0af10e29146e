"""DNS queries and answers as bytes (RFC 1035): pure, and only what an address lookup needs."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from enum import IntEnum

_HEADER = struct.Struct("!6H")
_RECORD = struct.Struct("!HHIH")
_RECURSION_DESIRED = 0x0100
_RESPONSE = 0x8000
_TRUNCATED = 0x0200
_INTERNET = 1
_MOST_JUMPS = 64

_CODES = ("", "the server did not understand", "the server failed", "no such name", "not implemented", "refused")


class RecordType(IntEnum):
    """The record types asked for."""

    A = 1
    AAAA = 28


@dataclass(frozen=True, slots=True)
class Lookup:
    """An answer: the addresses, or why there are none. `truncated` when it must be asked again over TCP."""

    addresses: tuple[str, ...] = ()
    problem: str = ""
    truncated: bool = False


def query(name: str, kind: RecordType, number: int) -> bytes:
    """The message that asks for `kind` records of `name`; raises ValueError for a name that DNS cannot carry."""
    return _HEADER.pack(number, _RECURSION_DESIRED, 1, 0, 0, 0) + _encoded(name) + struct.pack("!HH", kind, _INTERNET)


def answer(message: bytes, number: int) -> Lookup:
    """What `message` says to the query of that number; raises ValueError when it is no answer to it."""
    try:
        return _answer(message, number)
    except (struct.error, IndexError) as error:
        msg = "the answer is cut or damaged"
        raise ValueError(msg) from error


def _answer(message: bytes, number: int) -> Lookup:
    got, flags, questions, answers, _, _ = _HEADER.unpack_from(message)
    if got != number or not flags & _RESPONSE:
        msg = "this is not the answer to our question"
        raise ValueError(msg)
    if flags & _TRUNCATED:
        return Lookup(truncated=True)
    code = flags & 0xF
    if code:
        return Lookup(problem=_CODES[code] if code < len(_CODES) else f"error {code}")
    at = _HEADER.size
    for _ in range(questions):
        at = _after_name(message, at) + 4
    found: list[str] = []
    for _ in range(answers):
        at = _after_name(message, at)
        kind, family, _, length = _RECORD.unpack_from(message, at)
        at += _RECORD.size
        data = message[at : at + length]
        if family == _INTERNET and kind in (RecordType.A, RecordType.AAAA):
            if len(data) != (4 if kind == RecordType.A else 16):
                msg = "an address in the answer has a wrong length"
                raise ValueError(msg)
            found.append(str(ipaddress.ip_address(data)))
        at += length
    return Lookup(tuple(found))


def _encoded(name: str) -> bytes:
    labels = (
        name.rstrip(".").encode("idna").split(b".") if not name.isascii() else name.rstrip(".").encode().split(b".")
    )
    if any(not 0 < len(label) < 64 for label in labels):
        msg = f"{name!r} is no name that DNS can carry"
        raise ValueError(msg)
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def _after_name(message: bytes, at: int) -> int:
    """Where the name that starts at `at` ends; a compressed one ends with its pointer (RFC 1035, 4.1.4)."""
    for _ in range(_MOST_JUMPS * 2):
        length = message[at]
        if length == 0:
            return at + 1
        if length & 0xC0 == 0xC0:
            return at + 2
        at += 1 + length
    msg = "a name in the answer does not end"
    raise ValueError(msg)
