"""The check provider under the provider suite, and its four kinds against real servers on loopback."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from skyspan.contracts.transport import Command, Completed, Connection, OnOutput
from skyspan.model.change import Action, Observation
from skyspan.model.error import NotReadyError, UnreachableError
from skyspan.model.secret import Secret
from skyspan.providers.check.provider import CheckProvider
from skyspan.providers.check.spec import CheckSpec
from skyspan.testing.conformance.provider import ProviderCase, ProviderConformance
from skyspan.testing.provider_world import ProviderWorld, ScriptedTransport, SteppingClock
from skyspan.transports.local import LocalTransport

ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
async def here() -> AsyncIterator[LocalTransport]:
    transport = LocalTransport(ENV)
    yield transport
    await transport.close()


@pytest.fixture
def world(tmp_path: Path, here: LocalTransport) -> ProviderWorld:
    return ProviderWorld(tmp_path, {None: here, "lab-client": Named(ENV)})


class Named(LocalTransport):
    """A host other than this machine."""

    @property
    def name(self) -> str:
        return "lab-client"


@asynccontextmanager
async def serving(serve: Serve, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


def answering(answer: bytes) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    return serve


async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)


@pytest.fixture
async def open_port() -> AsyncIterator[int]:
    async with serving(accept) as port:
        yield port


@pytest.fixture
def closed_port() -> Any:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def spec(*checks: dict[str, Any], **settings: Any) -> CheckSpec:
    return CheckSpec.model_validate({"checks": list(checks), **settings})


async def run(world: ProviderWorld, *checks: dict[str, Any], **settings: Any) -> Observation:
    provider, wanted = CheckProvider(), spec(*checks, **settings)
    change = await provider.plan(wanted, await provider.observe(wanted, world.reading()), world.reading())
    return await provider.apply(wanted, change, world.writing())


async def failure(world: ProviderWorld, *checks: dict[str, Any], **settings: Any) -> NotReadyError:
    with pytest.raises(NotReadyError) as caught:
        await run(world, *checks, **settings)
    return caught.value


class TestConformance(ProviderConformance):
    @pytest.fixture
    async def case(self, world: ProviderWorld, open_port: int, closed_port: int) -> AsyncIterator[ProviderCase]:
        secret = Secret("the-word-inside")
        body = b"it says the-word-inside here"
        async with serving(answering(b"HTTP/1.1 200 OK\r\n\r\n" + body)) as port:
            service = f"http://127.0.0.1:{port}/"
            yield ProviderCase(
                provider=CheckProvider(),
                spec=spec({"tcp": f"127.0.0.1:{open_port}"}, {"tcp": f"127.0.0.1:{closed_port}", "refused": True}),
                changed=spec({"tcp": f"127.0.0.1:{open_port}"}, **{"from": "lab-client"}),
                secret_spec=spec({"http": service, "expect": {"contains": secret}}),
                failing_spec=spec({"http": service, "expect": {"contains": Secret("another-word")}}),
                slow_spec=spec({"tcp": f"127.0.0.1:{closed_port}"}, retry_for="60s"),
                world=world,
                snapshot=lambda: sorted(path.name for path in world.folder.iterdir()),
            )


async def test_the_report_tells_every_leg(world: ProviderWorld, open_port: int, closed_port: int) -> None:
    seen = await run(
        world,
        {"tcp": f"127.0.0.1:{open_port}"},
        {"tcp": f"127.0.0.1:{closed_port}", "refused": True},
        {"icmp": "127.0.0.1"},
    )
    report = seen.outputs["report"].value
    assert [(leg["from"], leg["to"], leg["kind"], leg["ok"], leg["tries"]) for leg in report] == [
        ("here", f"127.0.0.1:{open_port}", "tcp", True, 1),
        ("here", f"127.0.0.1:{closed_port}", "tcp", True, 1),
        ("here", "127.0.0.1", "icmp", True, 1),
    ]
    assert json.loads(json.dumps(report)) == report
    assert len(world.report.lines) == 3


async def test_the_failing_leg_is_named(world: ProviderWorld, open_port: int, closed_port: int) -> None:
    checks = ({"tcp": f"127.0.0.1:{open_port}"}, {"tcp": f"127.0.0.1:{closed_port}"})
    error = await failure(world, *checks, **{"from": "lab-client"})
    assert error.summary.startswith(f"1 of 2 checks fail: lab-client → 127.0.0.1:{closed_port}/tcp: ")
    first, second = error.detail.splitlines()
    assert first.startswith(f"ok   lab-client → 127.0.0.1:{open_port}/tcp: ok after")
    assert second.startswith(f"FAIL lab-client → 127.0.0.1:{closed_port}/tcp: ")
    assert "refused" in second


async def test_a_port_that_must_be_closed_and_is_open_fails(world: ProviderWorld, open_port: int) -> None:
    error = await failure(world, {"tcp": f"127.0.0.1:{open_port}", "refused": True})
    assert "reachable, but it must not be" in error.summary


async def test_a_name_that_does_not_resolve_is_no_proof_of_a_closed_port(world: ProviderWorld) -> None:
    error = await failure(world, {"tcp": "no-such-host.invalid:80", "refused": True})
    assert "does not resolve" in error.summary


async def test_a_host_that_is_down_is_no_proof_of_a_closed_port(world: ProviderWorld, tmp_path: Path) -> None:
    class Down(ScriptedTransport):
        async def query(self, command: Command, on_output: OnOutput | None = None) -> Completed:
            raise UnreachableError("lab-client: no route to host")

    down = ProviderWorld(tmp_path / "down", {"lab-client": Down()})
    with pytest.raises(UnreachableError, match="lab-client: no route to host"):
        await run(down, {"tcp": "127.0.0.1:1", "refused": True}, {"tcp": "127.0.0.1:2"}, **{"from": "lab-client"})


async def test_silence_counts_as_refused_only_where_that_is_wanted(world: ProviderWorld, tmp_path: Path) -> None:
    class Silent(ScriptedTransport):
        async def dial(self, address: str, port: int, timeout_s: float) -> Connection:
            await asyncio.Event().wait()
            raise AssertionError

    silent = ProviderWorld(tmp_path / "silent", {None: Silent()})
    leg = {"tcp": "192.0.2.1:80", "timeout": 0.05}
    assert (await run(silent, {**leg, "refused": True})).exists
    assert "no answer in 0.05 s" in (await failure(silent, leg)).summary


async def test_a_service_that_starts_late_is_waited_for(tmp_path: Path) -> None:
    class Accepted:
        async def send(self, data: bytes) -> None: ...

        async def receive(self, limit: int = 65536) -> bytes:
            return b""

        async def close(self) -> None: ...

    def connect(address: str, port: int) -> Connection:
        dialled.append(address)
        if len(dialled) < 4:
            raise UnreachableError(f"{address}:{port}: refused")
        return Accepted()

    dialled: list[str] = []
    slow = ProviderWorld(tmp_path, {None: ScriptedTransport(connect=connect)}, clock=SteppingClock())
    leg = {"tcp": "10.0.0.1:80"}
    assert "refused" in (await failure(slow, leg, retry_for="900ms")).summary
    assert len(dialled) == 2
    seen = await run(slow, {**leg, "retry_for": "30s"})
    assert seen.outputs["report"].value[0]["tries"] == 2


async def test_a_check_that_passed_is_unchanged_while_it_passes(world: ProviderWorld) -> None:
    provider = CheckProvider()
    async with serving(accept) as port:
        wanted = spec({"tcp": f"127.0.0.1:{port}"})
        applied = await run(world, {"tcp": f"127.0.0.1:{port}"})
        seen = await provider.observe(wanted, world.reading())
        assert seen.healthy
        assert seen.outputs == applied.outputs
        assert (await provider.plan(wanted, seen, world.reading())).action is Action.NONE
    seen = await provider.observe(wanted, world.reading())
    assert seen.exists
    assert not seen.healthy
    assert f"127.0.0.1:{port}/tcp" in seen.reason
    assert (await provider.plan(wanted, seen, world.reading())).action is Action.UPDATE


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n" + b'{"state": "good"}'
CHUNKED = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"sta\r\nc;x=y\r\nte": "good"}\r\n0\r\n\r\n'
INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK
UNTIL_CLOSE = b'HTTP/1.0 200 OK\r\n\r\n{"state": "good"}'


@pytest.mark.parametrize("answer", [OK, CHUNKED, INTERIM, UNTIL_CLOSE], ids=["length", "chunked", "interim", "close"])
@pytest.mark.parametrize("place", [None, "lab-client"])
async def test_http_reads_every_kind_of_answer(world: ProviderWorld, answer: bytes, place: str | None) -> None:
    expect = {"status": 200, "json": {"state": "good"}, "contains": "good"}
    async with serving(answering(answer)) as port:
        settings = {"from": place}
        assert (await run(world, {"http": f"http://127.0.0.1:{port}/health?x=1", "expect": expect}, **settings)).exists


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n\r\n", "it does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nshort", "before the answer was complete"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "damaged length"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "damaged chunk"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "damaged header"),
        (b"", "before the answer was complete"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "status 503 Busy, expected 2xx"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 80_000, "header is too long"),
    ],
    ids=["ssh", "short", "length", "chunk", "header", "nothing", "status", "endless"],
)
async def test_http_says_what_is_wrong_with_an_answer(world: ProviderWorld, answer: bytes, reason: str) -> None:
    async with serving(answering(answer)) as port:
        assert reason in (await failure(world, {"http": f"http://127.0.0.1:{port}/"})).summary


@pytest.fixture
def certificate(tmp_path: Path) -> ssl.SSLContext:
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


async def test_https_is_spoken_from_any_place(world: ProviderWorld, certificate: ssl.SSLContext) -> None:
    async with serving(answering(OK), certificate) as port:
        leg = {"http": f"https://127.0.0.1:{port}/"}
        assert (await run(world, {**leg, "verify": False}, **{"from": "lab-client"})).exists
        assert "not trusted" in (await failure(world, leg)).summary

    async def speak_plainly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    async with serving(speak_plainly) as port:
        assert "TLS failed" in (await failure(world, {"http": f"https://127.0.0.1:{port}/"})).summary


def dns_reply(question: bytes, flags: int = 0x8180) -> bytes:
    """An answer with an alias and one address: A 10.1.2.3 or AAAA fd00::3."""
    number = struct.unpack_from("!H", question)[0]
    kind = struct.unpack_from("!H", question, len(question) - 4)[0]
    header = struct.pack("!6H", number, flags, 1, 2 if flags == 0x8180 else 0, 0, 0)
    alias = b"\xc0\x0c" + struct.pack("!HHIH", 5, 1, 60, 7) + b"\x04real\xc0\x0c"
    data = socket.inet_aton("10.1.2.3") if kind == 1 else socket.inet_pton(socket.AF_INET6, "fd00::3")
    address = b"\x04real\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, len(data)) + data
    return header + question[12:] + (alias + address if flags == 0x8180 else b"")


class NameServer(asyncio.DatagramProtocol):
    def __init__(self, flags: int) -> None:
        self.flags = flags

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.transport.sendto(dns_reply(data, self.flags), addr)


@asynccontextmanager
async def name_server(flags: int = 0x8180) -> AsyncIterator[int]:
    """Over TCP it always answers; over UDP with `flags`."""

    async def over_tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = struct.unpack("!H", await reader.readexactly(2))[0]
        reply = dns_reply(await reader.readexactly(length), flags & ~0x0200)
        writer.write(struct.pack("!H", len(reply)) + reply)
        await writer.drain()

    async with serving(over_tcp) as port:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: NameServer(flags), local_addr=("127.0.0.1", port))
        yield port
        transport.close()


@pytest.mark.parametrize("flags", [0x8180, 0x8380], ids=["short", "truncated"])
@pytest.mark.parametrize("place", [None, "lab-client"])
async def test_dns_asks_the_server_that_is_named(world: ProviderWorld, flags: int, place: str | None) -> None:
    async with name_server(flags) as port:
        leg = {"dns": "gw.lab.example", "server": f"127.0.0.1:{port}", "expect": ["10.1.2.3", "FD00:0::3"]}
        assert (await run(world, leg, **{"from": place})).exists
        error = await failure(world, {**leg, "expect": "10.9.9.9"}, **{"from": place})
        assert "resolves to 10.1.2.3, fd00::3, not to 10.9.9.9" in error.summary


async def test_dns_tells_a_missing_name_from_a_failing_server(world: ProviderWorld, closed_port: int) -> None:
    leg = {"dns": "gw.lab.example"}
    async with name_server(0x8183) as port:
        assert "no such name" in (await failure(world, {**leg, "server": f"127.0.0.1:{port}"})).summary
        assert (await run(world, {**leg, "server": f"127.0.0.1:{port}", "refused": True})).exists
    async with name_server(0x8182) as port:
        error = await failure(world, {**leg, "server": f"127.0.0.1:{port}", "refused": True})
        assert "the server failed" in error.summary
    error = await failure(world, {**leg, "server": f"127.0.0.1:{closed_port}"})
    assert "refuses DNS queries" in error.summary


async def test_dns_without_a_server_asks_the_place(world: ProviderWorld) -> None:
    assert (await run(world, {"dns": "localhost"})).exists
    assert "no such name" in (await failure(world, {"dns": "no-such-host.invalid"})).summary


async def test_icmp_tells_silence_from_a_ping_that_cannot_try(world: ProviderWorld, tmp_path: Path) -> None:
    def answer(command: Command) -> Completed:
        if "192.0.2.1" in command.argv:
            return Completed(1, b"3 packets transmitted, 0 received, 100% packet loss")
        return Completed(2, stderr=b"ping: connect: Network is unreachable\n")

    scripted = ProviderWorld(tmp_path / "scripted", {None: ScriptedTransport(answer)})
    silent = {"icmp": "192.0.2.1", "count": 3}
    assert "no reply (0 of 3 pings answered)" in (await failure(scripted, silent)).summary
    assert (await run(scripted, {**silent, "refused": True})).exists
    error = await failure(scripted, {"icmp": "192.0.2.9", "refused": True})
    assert "ping could not try: ping: connect: Network is unreachable" in error.summary
