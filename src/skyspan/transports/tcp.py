"""Owns TCP connections from this machine, and the words for why one cannot be made."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket

from skyspan.model.error import UnreachableError

_NO_ROUTE = frozenset((errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT))


class TcpConnection:
    """An open connection (a `contracts.transport.Connection`)."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as error:
            raise broken(error) from error

    async def receive(self, limit: int = 65536) -> bytes:
        try:
            return await self._reader.read(limit)
        except OSError as error:
            raise broken(error) from error

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


async def dial_from_here(address: str, port: int, timeout_s: float) -> TcpConnection:
    """Connect to the first address of `address` that answers, all of them within `timeout_s`."""
    where = f"{address} port {port}"
    try:
        async with asyncio.timeout(timeout_s):
            return await _first_answering(address, port)
    except TimeoutError as error:
        raise no_answer(where, timeout_s) from error
    except socket.gaierror as error:
        raise unresolved(where, error.strerror or "") from error
    except OSError as error:
        raise unreachable(where, error) from error


async def _first_answering(address: str, port: int) -> TcpConnection:
    # Resolved here, as open_connection reports several failures as one text without a number.
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(address, port, type=socket.SOCK_STREAM)
    failures: list[OSError] = []
    for family, _, protocol, _, target in found:
        try:
            reader, writer = await asyncio.open_connection(str(target[0]), port, family=family, proto=protocol)
        except OSError as error:
            failures.append(error)
        else:
            return TcpConnection(reader, writer)
    # A refusal says more than the lack of a route for the other address family.
    raise next((error for error in failures if error.errno not in _NO_ROUTE), failures[-1])


def refused(where: str) -> UnreachableError:
    """Somebody is there but nothing listens, or a firewall rejects."""
    return UnreachableError(f"{where} refused the connection", hint="does the service run, and on this port?")


def no_route(where: str, detail: str) -> UnreachableError:
    """The network knows no way."""
    return UnreachableError(f"there is no route to {where}", detail=detail, hint="check addresses, routes and links")


def unresolved(where: str, detail: str) -> UnreachableError:
    """The name has no address."""
    return UnreachableError(f"the name in {where} cannot be resolved", detail=detail, hint="check the name and the DNS")


def no_answer(where: str, timeout_s: float) -> UnreachableError:
    """Silence: nobody there, or a firewall drops."""
    return UnreachableError(f"{where} did not answer within {timeout_s:g} s", hint="is it up, and let in by firewalls?")


def unreachable(where: str, error: OSError) -> UnreachableError:
    """The error for a failed connect, by its number."""
    if isinstance(error, ConnectionRefusedError):
        return refused(where)
    if error.errno in _NO_ROUTE:
        return no_route(where, error.strerror or "")
    if error.errno == errno.ETIMEDOUT:
        return UnreachableError(f"{where} did not answer", hint="is it up, and let in by firewalls?")
    return UnreachableError(f"cannot connect to {where}", detail=error.strerror or str(error))


def broken(error: Exception) -> UnreachableError:
    """The error for a connection that ended without being closed."""
    return UnreachableError("the connection broke", detail=str(error))
