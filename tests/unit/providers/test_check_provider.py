"""The check stage's pure parts: its settings, endpoints, DNS messages, requests."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest
from pydantic import ValidationError

from skyspan.providers.check import dns
from skyspan.providers.check.probe import ping_command
from skyspan.providers.check.request import get_request
from skyspan.providers.check.spec import CheckSpec, Leg, endpoint


def leg(**settings: Any) -> Leg:
    return Leg.model_validate(settings)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gw:22", ("gw", 22)),
        ("192.0.2.1:65535", ("192.0.2.1", 65535)),
        ("[2001:db8::1]:80", ("2001:db8::1", 80)),
    ],
)
def test_an_endpoint_is_address_and_port(text: str, expected: tuple[str, int]) -> None:
    assert endpoint(text) == expected


def test_an_endpoint_may_do_without_the_port_where_there_is_a_default() -> None:
    assert endpoint("192.0.2.1", 53) == ("192.0.2.1", 53)
    assert endpoint("2001:db8::1", 53) == ("2001:db8::1", 53)
    assert endpoint("[2001:db8::1]:5353", 53) == ("2001:db8::1", 5353)


@pytest.mark.parametrize("text", ["gw", ":22", "gw:0", "gw:65536", "gw:ssh", "2001:db8::1:80", "[::1]80", "[::1]", ""])
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no endpoint"):
        endpoint(text)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"tcp": "a:1", "icmp": "a"},
        {"tcp": "a"},
        {"icmp": "-f"},
        {"icmp": ""},
        {"icmp": "a b"},
        {"http": "ftp://a"},
        {"http": "http://"},
        {"http": "http://a/ HTTP/1.1\r\nX: y"},
        {"http": "http://a", "expect": "6xx"},
        {"http": "http://a", "server": "b"},
        {"tcp": "a:1", "expect": 200},
        {"dns": "a", "expect": {"status": 200}},
        {"dns": "a", "expect": "not-an-address"},
        {"dns": "a", "server": "b:x"},
        {"icmp": "a", "count": 0},
        {"icmp": "a", "timeout": 0},
        {"tcp": "a:1", "unknown": 1},
    ],
)
def test_a_leg_that_cannot_work_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        leg(**settings)


def test_a_stage_has_at_least_one_check() -> None:
    with pytest.raises(ValidationError):
        CheckSpec.model_validate({"checks": []})


def test_an_expected_answer_may_be_the_status_alone() -> None:
    assert leg(http="http://a", expect=204).wanted_answer().accepts(204)
    assert leg(http="http://a", expect=["2xx", "404"]).wanted_answer().accepts(404)
    assert leg(http="http://a", expect={"contains": "x"}).wanted_answer().contains == "x"


def test_ping_knows_its_own_deadline() -> None:
    argv = ping_command(leg(icmp="10.0.0.1", count=3, timeout="1500ms")).argv
    assert argv == ("ping", "-n", "-q", "-c", "3", "-i", "0.2", "-W", "2", "-w", "2", "10.0.0.1")


def test_a_request_names_its_host_and_ends_the_connection() -> None:
    request = get_request("http://user:pw@gw.lab:8080/a?b=c#d")
    assert request.startswith(b"GET /a?b=c HTTP/1.1\r\nHost: gw.lab:8080\r\n")
    assert b"Connection: close\r\n" in request
    assert b"pw" not in request


def test_a_dns_query_is_as_the_standard_draws_it() -> None:
    assert dns.query("gw.lab.", dns.RecordType.A, 0x1234) == bytes.fromhex(
        "1234 0100 0001 0000 0000 0000 02 6777 03 6c6162 00 0001 0001"
    )


@pytest.mark.parametrize("name", ["", "a..b", "x" * 64 + ".lab"])
def test_a_name_that_dns_cannot_carry_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no name that DNS can carry"):
        dns.query(name, dns.RecordType.A, 1)


def test_a_dns_answer_to_another_question_is_refused() -> None:
    answer = struct.pack("!6H", 7, 0x8180, 0, 0, 0, 0)
    assert dns.answer(answer, 7) == dns.Lookup()
    with pytest.raises(ValueError, match="not the answer"):
        dns.answer(answer, 8)
    with pytest.raises(ValueError, match="not the answer"):
        dns.answer(struct.pack("!6H", 7, 0x0100, 0, 0, 0, 0), 7)


def test_damaged_dns_answers_are_refused_or_harmless() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    whole = struct.pack("!6H", 7, 0x8180, 1, 1, 0, 0) + dns.query("gw.lab", dns.RecordType.A, 7)[12:]
    whole += b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + bytes([10, 1, 2, 3])
    assert dns.answer(whole, 7).addresses == ("10.1.2.3",)
    for _ in range(3000):
        damaged = bytearray(whole[: chance.randrange(len(whole) + 1)])
        for _ in range(chance.randrange(4)):
            if damaged:
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        try:
            dns.answer(bytes(damaged), 7)
        except ValueError:
            continue
