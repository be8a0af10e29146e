"""One try of one leg, from the place it starts at."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import re
import ssl
from collections.abc import Callable
from urllib.parse import urlsplit

from skyspan.contracts.context import Clock
from skyspan.contracts.transport import Command, Completed, Connection, Effect, Reader
from skyspan.model.error import UnreachableError
from skyspan.providers.check import dns
from skyspan.providers.check.request import Encrypted, ProtocolError, get, trust
from skyspan.providers.check.spec import DNS_PORT, Leg, endpoint
from skyspan.providers.http.expect import mismatches

_RECEIVED = re.compile(rb"(\d+) (?:packets )?received")
_NAME_UNKNOWN = 2
"""getent's exit status for a name that does not resolve."""
_PING_GRACE_S = 2.0

_NO_REPLY = 1
"""ping's exit status when nothing answered; higher ones mean that it could not try."""


class Failed(Exception):
    """The leg's target is not reached, or answers wrongly. `closed` when nothing can be reached there at all."""

    def __init__(self, reason: str, *, closed: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.closed = closed


async def probe(leg: Leg, place: Reader, clock: Clock) -> None:
    """Try the leg once; returning means that its target was reached and answered as expected.

    Raises Failed, TimeoutError when the leg's own deadline passes, and what the transport raises when the place
    itself cannot be used.
    """
    # ping keeps its own deadline, in whole seconds, and is only ended from here when it does not.
    async with asyncio.timeout(leg.timeout + _PING_GRACE_S if leg.kind == "icmp" else leg.timeout):
        if leg.kind == "icmp":
            await _ping(leg, place)
        elif leg.kind == "tcp":
            address, port = endpoint(leg.target)
            await (await _dial(leg, place, address, port)).close()
        elif leg.kind == "http":
            await _get(leg, place)
        else:
            await _resolve(leg, place, clock)


async def resolvable(leg: Leg, place: Reader) -> str:
    """Why the leg's target name does not resolve at the place; empty for an address, and for a name that does."""
    if leg.kind == "dns":
        return ""
    name = leg.target
    if leg.kind == "tcp":
        name = endpoint(leg.target)[0]
    elif leg.kind == "http":
        name = urlsplit(leg.target).hostname or ""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        found = await _looked_up(name, place)
        return "" if found else f"the name {name} does not resolve"
    return ""


def ping_command(leg: Leg) -> Command:
    """Pings the leg's target; every reply is waited for as long as the leg may take."""
    wait = str(max(1, math.ceil(leg.timeout)))
    argv = ("ping", "-n", "-q", "-c", str(leg.count), "-i", "0.2", "-W", wait, "-w", wait, leg.target)
    return Command(argv, effect=Effect.READ)


async def _ping(leg: Leg, place: Reader) -> None:
    done = await place.query(ping_command(leg))
    if done.exit_code == 0:
        return
    if done.exit_code == _NO_REPLY:
        received = _RECEIVED.search(done.stdout)
        count = received[1].decode() if received else "0"
        raise Failed(f"no reply ({count} of {leg.count} pings answered)", closed=True)
    raise Failed(f"ping could not try: {_last_line(done)}")


async def _dial(leg: Leg, place: Reader, address: str, port: int) -> Connection:
    try:
        return await place.dial(address, port, leg.timeout)
    except UnreachableError as error:
        raise Failed(error.summary, closed=True) from error


async def _get(leg: Leg, place: Reader) -> None:
    parts = urlsplit(leg.target)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    connection = await _dial(leg, place, host, port)
    try:
        if parts.scheme == "https":
            connection = await _encrypted(connection, host, trust(leg.verify))
        answer = await get(connection, leg.target)
    except ssl.SSLCertVerificationError as error:
        raise Failed(f"its certificate is not trusted: {error.verify_message}") from error
    except ssl.SSLError as error:
        raise Failed(f"TLS failed: {error.reason or type(error).__name__}") from error
    except (ProtocolError, OSError) as error:
        raise Failed(str(error) or type(error).__name__) from error
    finally:
        await connection.close()
    wrong = mismatches(leg.wanted_answer(), answer)
    if wrong:
        raise Failed("; ".join(wrong))


async def _encrypted(connection: Connection, host: str, context: ssl.SSLContext) -> Connection:
    session = Encrypted(connection, host, context)
    await session.handshake()
    return session


async def _resolve(leg: Leg, place: Reader, clock: Clock) -> None:
    if leg.server is None:
        found = await _looked_up(leg.target, place)
    else:
        found = await _asked(leg, place, clock)
    if not found:
        raise Failed("no such name", closed=True)
    missing = [address for address in leg.wanted_addresses() if address not in found]
    if missing:
        raise Failed(f"resolves to {', '.join(found)}, not to {', '.join(missing)}")


async def _looked_up(name: str, place: Reader) -> tuple[str, ...]:
    """The addresses that the place's own resolver gives for `name`."""
    done = await place.query(Command(("getent", "ahosts", name), effect=Effect.READ))
    if done.exit_code == _NAME_UNKNOWN:
        return ()
    if not done.ok:
        raise Failed(f"getent could not try: {_last_line(done)}")
    addresses = [line.split()[0] for line in done.text().splitlines() if line.strip()]
    return tuple(dict.fromkeys(str(ipaddress.ip_address(address)) for address in addresses))


async def _asked(leg: Leg, place: Reader, clock: Clock) -> tuple[str, ...]:
    """The addresses that the leg's name server gives: over UDP from here, over TCP from a host and for long answers."""
    address, port = endpoint(leg.server or "", DNS_PORT)
    found: list[str] = []
    for kind in dns.RecordType:
        number = int(clock.monotonic() * 1_000_000) & 0xFFFF
        question = dns.query(leg.target, kind, number)
        try:
            lookup = None
            if place.name == "here":
                lookup = dns.answer(await _over_udp(question, address, port), number)
            if lookup is None or lookup.truncated:
                lookup = dns.answer(await _over_tcp(leg, question, place, address, port), number)
        except ValueError as error:
            raise Failed(str(error)) from error
        except ConnectionRefusedError as error:
            raise Failed(f"{leg.server} refuses DNS queries", closed=True) from error
        except OSError as error:
            raise Failed(f"{leg.server}: {error.strerror or error}", closed=True) from error
        if lookup.problem and lookup.problem != "no such name":
            raise Failed(lookup.problem)
        found += lookup.addresses
    return tuple(dict.fromkeys(found))


async def _over_tcp(leg: Leg, question: bytes, place: Reader, address: str, port: int) -> bytes:
    """RFC 7766: each message after its length in two bytes."""
    connection = await _dial(leg, place, address, port)
    try:
        await connection.send(len(question).to_bytes(2, "big") + question)
        data = b""
        while len(data) < 2 or len(data) < 2 + int.from_bytes(data[:2], "big"):
            more = await connection.receive()
            if not more:
                raise Failed(f"{leg.server} closed the connection")
            data += more
        return data[2:]
    finally:
        await connection.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, reply: asyncio.Future[bytes]) -> None:
        self._reply = reply

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._settle(lambda: self._reply.set_result(data))

    def error_received(self, exc: Exception) -> None:
        self._settle(lambda: self._reply.set_exception(exc))

    def _settle(self, settle: Callable[[], None]) -> None:
        if not self._reply.done():
            settle()


async def _over_udp(question: bytes, address: str, port: int) -> bytes:
    loop = asyncio.get_running_loop()
    reply: asyncio.Future[bytes] = loop.create_future()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(reply), remote_addr=(address, port))
    try:
        transport.sendto(question)
        return await reply
    finally:
        transport.close()


def _last_line(done: Completed) -> str:
    lines = done.last_words().splitlines()
    return lines[-1] if lines else f"exit status {done.exit_code}"
