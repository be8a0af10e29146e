"""One GET over a byte stream, strictly (RFC 9112), so that it can start at any place a transport reaches."""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

from skyspan.contracts.transport import Connection
from skyspan.providers.http.expect import Answer

BODY_LIMIT = 1024 * 1024
"""The most of a body that is read, in bytes."""

_HEAD_LIMIT = 64 * 1024


class ProtocolError(Exception):
    """What came back is no HTTP answer; the text says how."""


class Stream:
    """A connection read by marks and lengths."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._buffer = bytearray()

    async def until(self, mark: bytes, limit: int) -> bytes:
        """Everything up to `mark`, which is consumed too; raises ProtocolError when it does not come in time."""
        while mark not in self._buffer:
            if len(self._buffer) > limit:
                raise ProtocolError("its header is too long")
            if not await self._more():
                raise ProtocolError("it closed the connection before the answer was complete")
        found, _, rest = bytes(self._buffer).partition(mark)
        self._buffer = bytearray(rest)
        return found

    async def exactly(self, count: int) -> bytes:
        """The next `count` bytes; raises ProtocolError when fewer come."""
        while len(self._buffer) < count:
            if not await self._more():
                raise ProtocolError("it closed the connection before the answer was complete")
        found = bytes(self._buffer[:count])
        del self._buffer[:count]
        return found

    async def rest(self, limit: int) -> bytes:
        """What comes until the end, `limit` bytes at most."""
        while len(self._buffer) < limit and await self._more():
            pass
        return bytes(self._buffer[:limit])

    async def _more(self) -> bool:
        data = await self._connection.receive()
        self._buffer += data
        return bool(data)


def get_request(url: str) -> bytes:
    """The bytes of a GET of `url`."""
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host = parts.netloc.rpartition("@")[2]
    lines = (f"GET {target} HTTP/1.1", f"Host: {host}", "User-Agent: skyspan", "Accept: */*", "Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


async def get(connection: Connection, url: str) -> Answer:
    """Ask for `url` over `connection`; raises ProtocolError for what is no HTTP/1 answer."""
    await connection.send(get_request(url))
    stream = Stream(connection)
    status, reason = 100, ""
    headers: dict[str, str] = {}
    while status < 200 and status != 101:
        head = await stream.until(b"\r\n\r\n", _HEAD_LIMIT)
        status, reason, headers = _head(head)
    body = await _body(stream, status, headers)
    return Answer(status, reason, headers, body[:BODY_LIMIT], url, cut=len(body) > BODY_LIMIT)


def _head(head: bytes) -> tuple[int, str, dict[str, str]]:
    first, *rest = head.decode("latin-1").split("\r\n")
    version, _, line = first.partition(" ")
    code, _, reason = line.partition(" ")
    if version not in {"HTTP/1.1", "HTTP/1.0"} or len(code) != 3 or not code.isdecimal():
        raise ProtocolError("it does not speak HTTP")
    headers: dict[str, str] = {}
    for field in rest:
        name, colon, value = field.partition(":")
        if not colon or not name or name != name.strip():
            raise ProtocolError("its answer has a damaged header")
        headers[name.lower()] = value.strip()
    return int(code), reason.strip(), headers


async def _body(stream: Stream, status: int, headers: dict[str, str]) -> bytes:
    if status in {204, 304} or status == 101:
        return b""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return await _chunks(stream)
    length = headers.get("content-length")
    if length is None:
        return await stream.rest(BODY_LIMIT + 1)
    if not length.isdecimal():
        raise ProtocolError("its answer has a damaged length")
    return await stream.exactly(min(int(length), BODY_LIMIT + 1))


async def _chunks(stream: Stream) -> bytes:
    body = bytearray()
    while len(body) <= BODY_LIMIT:
        size = (await stream.until(b"\r\n", _HEAD_LIMIT)).partition(b";")[0].strip()
        try:
            count = int(size, 16)
        except ValueError as error:
            raise ProtocolError("its answer has a damaged chunk") from error
        if count <= 0:
            return bytes(body)
        body += await stream.exactly(min(count, BODY_LIMIT + 1))
        if count > BODY_LIMIT:
            return bytes(body)
        await stream.exactly(2)
    return bytes(body)


class Encrypted:
    """A TLS client session over another connection, so that https works from any place too."""

    def __init__(self, inner: Connection, server_name: str, context: ssl.SSLContext) -> None:
        self._inner = inner
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._session = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)

    async def handshake(self) -> None:
        """Agree on keys and check the certificate; raises ssl.SSLError."""
        while True:
            try:
                self._session.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._feed()
            else:
                await self._flush()
                return

    async def send(self, data: bytes) -> None:
        """Send all of `data`."""
        self._session.write(data)
        await self._flush()

    async def receive(self, limit: int = 65536) -> bytes:
        """The next bytes, at most `limit`; empty at the end."""
        while True:
            try:
                return self._session.read(limit)
            except ssl.SSLWantReadError:
                await self._flush()
                await self._feed()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    async def close(self) -> None:
        """Close both directions; never raises."""
        await self._inner.close()

    async def _flush(self) -> None:
        data = self._outgoing.read()
        if data:
            await self._inner.send(data)

    async def _feed(self) -> None:
        data = await self._inner.receive()
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()


def trust(verify: bool) -> ssl.SSLContext:
    """The context that accepts certificates the system trusts; any, without `verify`."""
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
