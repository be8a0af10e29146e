"""The world's name server: answers from a file that the world rewrites, to whoever asks by UDP (RFC 1035).

Standard library only and run by path, inside the router's network namespace. The file is JSON: addresses by name. It is
read for every question, so that an answer that was swapped is the next one given; nothing may be kept (TTL 0).
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

PORT = 53

_HEADER = struct.Struct("!6H")
_QUESTION = struct.Struct("!2H")
_RECORD = struct.Struct("!3HIH")
_A, _ANY, _IN = 1, 255, 1
_ANSWER, _REFUSED, _NO_SUCH_NAME, _FORMAT = 0x8580, 5, 3, 1
_NAME_IN_QUESTION = 0xC000 | _HEADER.size
_RECURSION_WANTED = 0x0100
_PACKET_INFO = 8  # IP_PKTINFO of <linux/in.h>


def answer(query: bytes, zone: Mapping[str, Sequence[str]]) -> bytes:
    """The reply to a query; empty for what is none. Names are compared without case; only A records exist."""
    if len(query) < _HEADER.size:
        return b""
    number, flags, questions, *_ = _HEADER.unpack_from(query)
    if flags & 0x8000:
        return b""
    said = _ANSWER & ~_RECURSION_WANTED | flags & _RECURSION_WANTED
    try:
        name, end = _name(query, _HEADER.size)
        kind, family = _QUESTION.unpack_from(query, end)
    except (IndexError, struct.error):
        return _HEADER.pack(number, said | _FORMAT, 0, 0, 0, 0)
    question = query[_HEADER.size : end + _QUESTION.size]
    if questions != 1 or family != _IN:
        return _HEADER.pack(number, said | _REFUSED, 1, 0, 0, 0) + question
    known = zone.get(name)
    if known is None:
        return _HEADER.pack(number, said | _NO_SUCH_NAME, 1, 0, 0, 0) + question
    addresses = [socket.inet_aton(address) for address in known] if kind in (_A, _ANY) else []
    records = [_RECORD.pack(_NAME_IN_QUESTION, _A, _IN, 0, 4) + address for address in addresses]
    return _HEADER.pack(number, said, 1, len(records), 0, 0) + question + b"".join(records)


def _name(query: bytes, place: int) -> tuple[str, int]:
    """The name that starts at `place`, in lower case, and where it ends; a question's is never compressed."""
    labels = []
    while length := query[place]:
        labels.append(query[place + 1 : place + 1 + length].decode("ascii", "replace"))
        place += 1 + length
    return ".".join(labels).lower(), place + 1


def main(file: str) -> None:
    """Answer for ever; says a word once it listens."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port:
        port.setsockopt(socket.IPPROTO_IP, _PACKET_INFO, 1)
        port.bind(("0.0.0.0", PORT))
        os.write(1, b"listening\n")
        while True:
            query, asked, _, asker = port.recvmsg(4096, 64)
            reply = answer(query, json.loads(Path(file).read_text()))
            if reply:
                try:
                    # From the address that was asked: the asker takes an answer from no other.
                    port.sendmsg([reply], asked, 0, asker)
                except OSError:
                    continue  # the way back may be cut


if __name__ == "__main__":
    main(sys.argv[1])
