"""Speaks just as much HTTP/1.1 as the tools' state client does, and refuses everything else."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import parse_qs

_HEAD_LIMIT = 16 * 1024
_REQUEST_LINE = re.compile(r"^([A-Z]{3,8}) (/[\x21-\x7e]*) HTTP/1\.[01]$")
_CHUNK = re.compile(rb"^([0-9A-Fa-f]{1,8})\r\n$")
_HEADER = re.compile(r"^([A-Za-z0-9-]+):[ \t]*([\x20-\x7e\t]*?)[ \t]*$")

_REASONS: Mapping[int, str] = MappingProxyType(
    {
        200: "OK",
        400: "Bad Request",
        401: "Unauthorized",
        403: "Forbidden",
        404: "Not Found",
        405: "Method Not Allowed",
        409: "Conflict",
        411: "Length Required",
        413: "Content Too Large",
        423: "Locked",
        503: "Service Unavailable",
    }
)


class Malformed(Exception):
    """A request that is not answered as asked; the connection is closed after `status`."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request as it came."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


async def read_request(reader: asyncio.StreamReader, limit: int, credentials: str) -> Incoming | None:
    """The next request; None when the client has closed. Raises Malformed.

    The body is read only for who knows the `credentials` (the value of the Authorization header) and when it is at
    most `limit` bytes.
    """
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if not error.partial:
            return None
        raise Malformed(400, "the request ends within its head") from error
    except asyncio.LimitOverrunError as error:
        raise Malformed(400, "the request's head is too long") from error
    if len(head) > _HEAD_LIMIT:
        raise Malformed(400, "the request's head is too long")
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    line = _REQUEST_LINE.match(first)
    if line is None:
        raise Malformed(400, "that is no HTTP/1.1 request")
    headers = _headers(lines)
    if not _same(headers.get("authorization", ""), credentials):
        raise Malformed(401, "the credentials are not those of this attempt")
    try:
        body = await _body(reader, line[1], headers, limit)
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise Malformed(400, "the request ends within its body") from error
    path, _, query = line[2].partition("?")
    named = {name: values[0] for name, values in parse_qs(query).items() if len(values) == 1}
    return Incoming(line[1], path, named, headers, body)


def response(status: int, body: bytes) -> bytes:
    """An answer, whole; the connection stays open after it."""
    challenge = 'WWW-Authenticate: Basic realm="skyspan"\r\n' if status == 401 else ""
    head = f"HTTP/1.1 {status} {_REASONS.get(status, 'Error')}\r\nContent-Length: {len(body)}\r\n{challenge}"
    return head.encode() + b"Content-Type: application/json\r\n\r\n" + body


def _headers(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        found = _HEADER.match(line)
        if found is None or found[1].lower() in headers:
            raise Malformed(400, "a header cannot be read, or comes twice")
        headers[found[1].lower()] = found[2]
    return headers


async def _body(reader: asyncio.StreamReader, method: str, headers: Mapping[str, str], limit: int) -> bytes:
    coding = headers.get("transfer-encoding")
    if coding is None:
        return await reader.readexactly(_length(method, headers, limit))
    if coding.lower() != "chunked" or "content-length" in headers:
        raise Malformed(400, "the body's length is told in a way that is not understood")
    # Terraform's force-unlock sends its empty body so.
    body = bytearray()
    while size := _chunk_size(await reader.readuntil(b"\r\n")):
        if len(body) + size > limit:
            raise Malformed(413, f"the body is over {limit} bytes")
        body += await reader.readexactly(size)
        if await reader.readexactly(2) != b"\r\n":
            raise Malformed(400, "a chunk is longer than it says")
    if await reader.readexactly(2) != b"\r\n":
        raise Malformed(400, "trailers are not understood")
    return bytes(body)


def _chunk_size(line: bytes) -> int:
    found = _CHUNK.match(line)
    if found is None:
        raise Malformed(400, "a chunk's size cannot be read")
    return int(found[1], 16)


def _length(method: str, headers: Mapping[str, str], limit: int) -> int:
    told = headers.get("content-length", "0" if method in ("GET", "UNLOCK") else "")
    if not told.isascii() or not told.isdigit() or len(told) > 12:
        raise Malformed(411, "the body's length has to be told")
    if int(told) > limit:
        raise Malformed(413, f"the body is over {limit} bytes")
    return int(told)


def _same(given: str, wanted: str) -> bool:
    import hmac

    return hmac.compare_digest(given.encode(), wanted.encode())
