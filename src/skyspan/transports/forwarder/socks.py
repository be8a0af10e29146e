"""The server's side of SOCKS5 (RFC 1928), as far as a proxy without passwords needs it: CONNECT, to any address."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

from skyspan.contracts.forwarding import Place, Trouble, TroubleKind

_VERSION = 5
_CONNECT = 1
_NO_PASSWORD, _NO_METHOD = 0, 0xFF
_IPV4, _NAME, _IPV6 = 1, 3, 4
_NOT_SUPPORTED = 7

_REPLIES = {
    TroubleKind.TARGET_REFUSED: 5,
    TroubleKind.UNKNOWN_HOST: 4,
    TroubleKind.FORWARDING_FORBIDDEN: 2,
    TroubleKind.UNREACHABLE: 4,
}.items()


class NotSocksError(Exception):
    """The client speaks something else; `answer` may tell it."""

    def __init__(self, answer: bytes = b"") -> None:
        super().__init__("no SOCKS5")
        self.answer = answer


async def asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Place:
    """Where the client wants to be connected to. Raises NotSocksError."""
    try:
        version, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        if version != _VERSION:
            raise NotSocksError
        if _NO_PASSWORD not in methods:
            raise NotSocksError(bytes((_VERSION, _NO_METHOD)))
        writer.write(bytes((_VERSION, _NO_PASSWORD)))
        version, command, _, kind = await reader.readexactly(4)
        if kind == _NAME:
            length = (await reader.readexactly(1))[0]
            name = (await reader.readexactly(length)).decode("ascii")
        elif kind in {_IPV4, _IPV6}:
            name = str(ip_address(await reader.readexactly(4 if kind == _IPV4 else 16)))
        else:
            raise NotSocksError
        port = int.from_bytes(await reader.readexactly(2), "big")
    except (asyncio.IncompleteReadError, UnicodeDecodeError, OSError) as error:
        raise NotSocksError from error
    if version != _VERSION or command != _CONNECT:
        raise NotSocksError(_reply(_NOT_SUPPORTED))
    return name, port


def connected() -> bytes:
    """What the client is told when it is."""
    return _reply(0)


def refused(trouble: Trouble) -> bytes:
    """What the client is told when it cannot be; 1 is a failure of any other kind."""
    return _reply(dict(_REPLIES).get(trouble.kind, 1))


def _reply(code: int) -> bytes:
    """The address that the far side bound is not known here: RFC 1928 lets it be zero."""
    return bytes((_VERSION, code, 0, _IPV4, 0, 0, 0, 0, 0, 0))
