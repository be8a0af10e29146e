"""Proves a forward by a connection through it: what is sent and read, over any place's connections."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

from skyspan.contracts.context import ReadContext
from skyspan.contracts.forwarding import Forward, ForwardKind, ForwardState, Place, Trouble, TroubleKind
from skyspan.contracts.transport import Connection
from skyspan.model.error import StageError, UnreachableError

_REPLIES = (
    (2, TroubleKind.FORWARDING_FORBIDDEN, "forbids it"),
    (4, TroubleKind.UNREACHABLE, "cannot reach it, or does not know its name"),
    (5, TroubleKind.TARGET_REFUSED, "finds that it refuses connections"),
)
"""Of RFC 1928 section 6, as the forwarder uses them."""


def shown(place: Place) -> str:
    """`address:port`, an IPv6 address in brackets."""
    address, port = place
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def reached_at(place: Place) -> Place:
    """Where the machine that listens on `place` reaches it itself."""
    address, port = ip_address(place[0]), place[1]
    if address.is_unspecified:
        return ("127.0.0.1" if address.version == 4 else "::1"), port
    return str(address), port


class UnaskedError(Exception):
    """The host that was to connect could not be asked: that says nothing of the forward."""


async def passes(
    forward: Forward, state: ForwardState, probe: Place | None, ctx: ReadContext, through: str, within_s: float
) -> Trouble | None:
    """Whether a connection through the forward is led on: None when it is. Raises UnaskedError.

    `probe` is what a proxy is asked for; without it the proxy itself has to answer.
    """
    remote = forward.kind is ForwardKind.REMOTE
    where = shown(forward.listen)
    try:
        async with asyncio.timeout(within_s):
            address, port = reached_at(forward.listen)
            connection = await ctx.places.reach(through if remote else None).dial(address, port, within_s)
            try:
                if forward.kind is ForwardKind.DYNAMIC:
                    return await _proxied(connection, probe, through)
                return await ctx.forwarder.heard(forward.name, state.tried, within_s * 0.9)
            finally:
                await connection.close()
    except TimeoutError:
        if remote:
            raise UnaskedError(f"{through} did not answer in {within_s:g} s") from None
        return Trouble(TroubleKind.UNREACHABLE, f"nothing came of a connection to {where} in {within_s:g} s")
    except UnreachableError as error:
        if "refused" not in error.summary:
            if remote:
                raise UnaskedError(error.summary) from error
            # What cannot be led on is reset at once, which may come before the connection is known to stand.
            return await ctx.forwarder.heard(forward.name, state.tried, within_s * 0.9)
        listener = through if remote else "this machine"
        return Trouble(TroubleKind.UNREACHABLE, f"{listener} does not listen on {where}", detail=error.summary)
    except StageError as error:
        raise UnaskedError(error.summary) from error


async def _proxied(connection: Connection, probe: Place | None, through: str) -> Trouble | None:
    """Speak SOCKS5 (RFC 1928) to a forwarder's proxy."""
    await connection.send(b"\x05\x01\x00")
    if await _read(connection, 2) != b"\x05\x00":
        return Trouble(TroubleKind.PORT_TAKEN, "what answers there is not our proxy")
    if probe is None:
        return None
    name = probe[0].encode("idna" if not probe[0].isascii() else "ascii")
    await connection.send(b"\x05\x01\x00\x03" + bytes((len(name),)) + name + probe[1].to_bytes(2, "big"))
    answer = await _read(connection, 10)
    if answer[1:2] == b"\x00":
        return None
    code = answer[1] if len(answer) > 1 else 1
    kind, words = next(
        ((kind, words) for number, kind, words in _REPLIES if number == code), (TroubleKind.UNREACHABLE, "fails")
    )
    return Trouble(
        kind, f"{shown(probe)} cannot be reached through the proxy: {through} {words}", hint="does it run there?"
    )


async def _read(connection: Connection, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := await connection.receive(size - len(data))):
        data += more
    return data
