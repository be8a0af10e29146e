"""The pure parts of a forwarder: orders as JSON, the words for failures, SOCKS5, and how connections are counted."""

from __future__ import annotations

import asyncio
import errno
import json
import random
import socket
from pathlib import Path

import pytest

from skyspan.contracts.forwarding import (
    Forward,
    ForwarderState,
    Forwarding,
    ForwardKind,
    ForwardState,
    Trouble,
    TroubleKind,
)
from skyspan.contracts.host import Host
from skyspan.model.address import DeploymentAddress
from skyspan.model.error import CredentialsError, HostKeyError, SpecError, UnreachableError
from skyspan.model.secret import Secret
from skyspan.transports.forwarder import socks, words
from skyspan.transports.forwarder.control import forwarder_folder, way_to
from skyspan.transports.forwarder.order import (
    Way,
    forwarding_of,
    forwarding_record,
    state_of,
    state_record,
    way_of,
    way_record,
)
from skyspan.transports.forwarder.tally import Tally
from skyspan.transports.ssh_connect import SshSettings

JUMP = Host("jump", "192.0.2.1", user="ubuntu", key_file="/keys/id", known_hosts="/keys/known")
GATEWAY = Host("gw", "10.0.0.1", port=2222, key=Secret("the key"), host_key="ssh-ed25519 AAAA", jump="jump")
SSH = SshSettings(Path("/home/known_hosts"), (Path("/home/id"),), "/run/agent")
FORWARDING = Forwarding(
    "gw",
    (
        Forward("db", ForwardKind.LOCAL, ("127.0.0.1", 5432), ("db", 5432)),
        Forward("proxy", ForwardKind.DYNAMIC, ("::1", 1080)),
    ),
    2.5,
    4,
)


def test_orders_and_states_survive_being_sent() -> None:
    way = way_of(json.loads(json.dumps(way_record(Way((JUMP, GATEWAY), SSH)))))
    assert way.hosts[1].key == Secret("the key")
    assert (way.ssh.known_hosts, way.ssh.agent) == (SSH.known_hosts, SSH.agent)
    assert forwarding_of(json.loads(json.dumps(forwarding_record(FORWARDING)))) == FORWARDING
    trouble = Trouble(TroubleKind.BIND_REFUSED, "a", "b", "c")
    state = ForwarderState(
        FORWARDING,
        True,
        False,
        3,
        trouble,
        {"db": ForwardState(True, None, 5, 1), "proxy": ForwardState(False, trouble)},
    )
    assert state_of(json.loads(json.dumps(state_record(state))), current=True) == state
    assert "the key" not in json.dumps(state_record(state))


def test_a_way_differs_by_whatever_decides_how_to_reach_the_host() -> None:
    way = way_to("gw", {"gw": GATEWAY, "jump": JUMP}, SSH)
    assert [host.name for host in way.hosts] == ["jump", "gw"]
    same = way_to("gw", {"jump": JUMP, "gw": GATEWAY}, SSH)
    assert same.digest() == way.digest()
    others = [
        Way((JUMP, Host("gw", "10.0.0.2", port=2222, key=Secret("the key"), host_key="ssh-ed25519 AAAA")), SSH),
        Way((JUMP, Host("gw", "10.0.0.1", port=2222, key=Secret("other"), host_key="ssh-ed25519 AAAA")), SSH),
        Way((GATEWAY,), SSH),
    ]
    assert len({way.digest(), *(other.digest() for other in others)}) == 4
    with pytest.raises(SpecError, match="no host gone"):
        way_to("gone", {}, SSH)


def test_each_stage_has_a_folder_of_its_own_with_a_short_name(tmp_path: Path) -> None:
    deployment = DeploymentAddress("default", "d" * 60)
    folders = {forwarder_folder(tmp_path, deployment.stage(name)) for name in ("a", "b")}
    assert len(folders) == 2
    assert all(len(folder.name) == 16 for folder in folders)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EADDRINUSE, TroubleKind.PORT_TAKEN),
        (errno.EACCES, TroubleKind.PORT_FORBIDDEN),
        (errno.EADDRNOTAVAIL, TroubleKind.NO_SUCH_ADDRESS),
        (errno.EIO, TroubleKind.PORT_FORBIDDEN),
    ],
)
def test_why_a_port_cannot_be_had_is_told_by_the_systems_number(number: int, kind: TroubleKind) -> None:
    found = words.not_listening_here(("::1", 80), OSError(number, "words"))
    assert found.kind is kind
    assert "::1" in found.summary


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (1, "open failed", TroubleKind.FORWARDING_FORBIDDEN),
        (2, "Connection refused", TroubleKind.TARGET_REFUSED),
        (2, "Name or service not known", TroubleKind.UNKNOWN_HOST),
        (2, "Temporary failure in name resolution", TroubleKind.UNKNOWN_HOST),
        (2, "No route to host", TroubleKind.UNREACHABLE),
        (4, "", TroubleKind.UNREACHABLE),
    ],
)
def test_why_the_host_led_nothing_on_is_told_by_its_code_and_words(code: int, reason: str, kind: TroubleKind) -> None:
    assert words.not_led_on(("db", 5432), "gw", code, reason).kind is kind


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (socket.gaierror(-2, "Name or service not known"), TroubleKind.UNKNOWN_HOST),
        (ConnectionRefusedError(), TroubleKind.TARGET_REFUSED),
        (OSError(errno.EHOSTUNREACH, "No route to host"), TroubleKind.UNREACHABLE),
    ],
)
def test_why_this_machine_led_nothing_on_is_told(error: OSError, kind: TroubleKind) -> None:
    assert words.not_reached_here(("db", 5432), error).kind is kind


def test_why_there_is_no_connection_is_told_by_the_error() -> None:
    kinds = [
        words.connecting_failed(error).kind
        for error in (
            HostKeyError("changed"),
            CredentialsError("refused"),
            UnreachableError("the name in gw cannot be resolved"),
            UnreachableError("silence"),
        )
    ]
    expected = [TroubleKind.HOST_KEY, TroubleKind.CREDENTIALS, TroubleKind.UNKNOWN_HOST, TroubleKind.UNREACHABLE]
    assert kinds == expected


class Pipe:
    """A writer that keeps what is written."""

    def __init__(self) -> None:
        self.said = b""

    def write(self, data: bytes) -> None:
        self.said += data


def asking(data: bytes) -> tuple[asyncio.StreamReader, Pipe]:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return reader, Pipe()


@pytest.mark.parametrize(
    ("address", "place"),
    [
        (b"\x01\x0a\x00\x00\x01", ("10.0.0.1", 443)),
        (b"\x03\x06db.lab", ("db.lab", 443)),
        (b"\x04" + b"\x20\x01\x0d\xb8" + bytes(11) + b"\x01", ("2001:db8::1", 443)),
    ],
)
async def test_a_proxy_hears_where_its_client_wants_to_go(address: bytes, place: tuple[str, int]) -> None:
    reader, pipe = asking(b"\x05\x02\x02\x00" + b"\x05\x01\x00" + address + b"\x01\xbb")
    assert await socks.asked(reader, pipe) == place  # type: ignore[arg-type]
    assert pipe.said == b"\x05\x00"
    assert socks.connected() == b"\x05\x00\x00\x01" + bytes(6)


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"GET / HTTP/1.1\r\n\r\n" + bytes(200), b""),
        (b"\x04\x01\x00\x50\x0a\x00\x00\x01", b""),
        (b"\x05\x01\x02", b"\x05\xff"),
        (b"\x05\x01\x00\x05\x02\x00\x01\x0a\x00\x00\x01\x00\x50", b"\x05\x07\x00\x01" + bytes(6)),
        (b"\x05\x01\x00\x05\x01\x00\x09", b""),
        (b"\x05\x01\x00\x05\x01\x00\x03\x02\xff\xfe\x00\x50", b""),
        (b"", b""),
    ],
)
async def test_what_is_no_socks5_is_turned_away(data: bytes, answer: bytes) -> None:
    reader, pipe = asking(data)
    with pytest.raises(socks.NotSocksError) as raised:
        await socks.asked(reader, pipe)  # type: ignore[arg-type]
    assert raised.value.answer == answer


async def test_a_proxy_is_not_upset_by_whatever_it_is_sent() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(500):
        begin = chance.choice([b"", b"\x05", b"\x05\x01\x00", b"\x05\x01\x00\x05\x01\x00"])
        reader, pipe = asking(begin + chance.randbytes(chance.randrange(40)))
        try:
            name, port = await socks.asked(reader, pipe)  # type: ignore[arg-type]
        except socks.NotSocksError:
            continue
        assert 0 <= port < 65536
        assert isinstance(name, str)


@pytest.mark.parametrize("kind", TroubleKind)
def test_every_trouble_has_a_reply_code(kind: TroubleKind) -> None:
    assert 1 <= socks.refused(Trouble(kind, ""))[1] <= 5


async def test_waiting_for_a_connection_hears_of_the_first_that_came_after() -> None:
    tally, trouble = Tally(), Trouble(TroubleKind.TARGET_REFUSED, "refused")
    await tally.end(tally.begin(), trouble)
    waiting = asyncio.create_task(tally.heard(1))
    await asyncio.sleep(0)
    assert not waiting.done(), "the one before says nothing"
    await tally.end(tally.begin(), None)
    assert await waiting is None
    assert await tally.heard(0) is trouble
    assert (tally.tried, tally.failed) == (2, 1)
