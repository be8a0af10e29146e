from __future__ import annotations

import random
import struct

import pytest

from skyspan.rehearsal.underlay.nameserver import answer

ZONE = {"gw.example.org": ["203.0.113.10"], "gw": ["203.0.113.11", "203.0.113.12"]}


def query(name: str, kind: int = 1, flags: int = 0x0100, family: int = 1) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!6H", 77, flags, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", kind, family)


def read(reply: bytes) -> tuple[int, int, list[str]]:
    """Number, status and addresses of a reply."""
    number, flags, _, answers, _, _ = struct.unpack_from("!6H", reply)
    assert flags & 0x8000
    tail = reply[len(reply) - 16 * answers :]
    return number, flags & 0xF, [".".join(map(str, tail[at + 12 : at + 16])) for at in range(0, len(tail), 16)]


def test_a_known_name_has_its_addresses_whatever_its_case() -> None:
    assert read(answer(query("GW.Example.org"), ZONE)) == (77, 0, ["203.0.113.10"])
    assert read(answer(query("gw"), ZONE)) == (77, 0, ["203.0.113.11", "203.0.113.12"])


def test_a_known_name_has_no_ipv6_address_and_exists_all_the_same() -> None:
    assert read(answer(query("gw", kind=28), ZONE)) == (77, 0, [])


def test_an_unknown_name_does_not_exist() -> None:
    assert read(answer(query("mars.example.org"), ZONE)) == (77, 3, [])


def test_another_class_is_refused() -> None:
    assert read(answer(query("gw", family=3), ZONE)) == (77, 5, [])


def test_an_answer_may_not_be_kept() -> None:
    assert struct.unpack_from("!I", answer(query("gw.example.org"), ZONE), len(query("gw.example.org")) + 6) == (0,)


@pytest.mark.parametrize("asked", [b"", b"\0" * 11, query("gw", flags=0x8180)])
def test_what_is_no_question_gets_no_answer(asked: bytes) -> None:
    assert answer(asked, ZONE) == b""


def test_no_packet_makes_it_fall_over() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(2000):
        asked = bytearray(query("gw.example.org")[: chance.randrange(40)])
        for _ in range(chance.randrange(6)):
            if asked:
                asked[chance.randrange(len(asked))] = chance.randrange(256)
        answer(bytes(asked), ZONE)
