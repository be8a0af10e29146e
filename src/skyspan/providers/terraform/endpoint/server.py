"""Serves the ledger on loopback to the commands of one verb, with credentials of its own."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace

from skyspan.model.error import FencedError, SkyspanError
from skyspan.model.secret import Secret
from skyspan.providers.terraform.endpoint.http import Incoming, Malformed, read_request, response
from skyspan.providers.terraform.endpoint.ledger import (
    SIZE_LIMIT,
    Deed,
    Ledger,
    Lock,
    Method,
    Request,
    decide,
    read_version,
)

_PATH = "/state"
_BUFFER = 64 * 1024
_HANG_UP_S = 1.0

Perform = Callable[[Deed], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that was not granted, and why; `lock` is the one that stood in the way of a LOCK."""

    method: str
    status: int
    why: str
    lock: Lock | None = None

    def __str__(self) -> str:
        what = {"POST": "a state that was pushed", "LOCK": "a lock", "UNLOCK": "an unlock"}.get(
            self.method, "a request"
        )
        return f"refused {what}: {self.why}"


Tell = Callable[[Refusal], None]


class Endpoint:
    """A running endpoint: begins reading, and can be opened for one writer.

    A deed that fails is answered with a refusal; its error waits for `raise_failure`. States over `limit` bytes are
    refused unread. `obstacle` is the lock that the last refused LOCK met.
    """

    def __init__(self, limit: int = SIZE_LIMIT) -> None:
        self.obstacle: Lock | None = None
        self._limit = limit
        self._tell: Tell = _say_nothing
        self._told: Refusal | None = None
        self._ledger = Ledger()
        self._perform: Perform | None = None
        self._turn = asyncio.Lock()
        self._failure: BaseException | None = None
        self._user, self._password = secrets.token_urlsafe(9), secrets.token_urlsafe(24)
        self._port = 0
        self._connections: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}

    @property
    def ledger(self) -> Ledger:
        """What stands now."""
        return self._ledger

    def show(self, data: bytes | None) -> None:
        """Let reading commands see that state."""
        self._ledger = replace(self._ledger, state=read_version(data) if data else None)

    def open_for_writing(
        self,
        data: bytes | None,
        epoch: int,
        perform: Perform,
        lock: Lock | None = None,
        *,
        who: str = "",
        tell: Tell | None = None,
    ) -> None:
        """From now on the state can be locked and written; every deed is performed before it is answered.

        `who` is shown to whoever meets a lock that is given here; `tell` hears of each refusal, of repeated ones once.
        """
        self._ledger = Ledger(read_version(data) if data else None, lock, epoch, writable=True, who=who)
        self._perform = perform
        self._tell = tell or _say_nothing

    def close_for_writing(self) -> None:
        """From now on the state can only be read."""
        self._ledger = replace(self._ledger, writable=False, lock=None)
        self._perform = None

    def raise_failure(self) -> None:
        """Raise what kept a deed from being done, once."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def environment(self, *, locking: bool) -> dict[str, str | Secret]:
        """The variables that lead a command here (https://opentofu.org/docs/language/settings/backends/http/)."""
        address = f"http://127.0.0.1:{self._port}{_PATH}"
        return {
            "TF_HTTP_ADDRESS": address,
            "TF_HTTP_UPDATE_METHOD": "POST",
            "TF_HTTP_LOCK_ADDRESS": address if locking else "",
            "TF_HTTP_LOCK_METHOD": "LOCK",
            "TF_HTTP_UNLOCK_ADDRESS": address if locking else "",
            "TF_HTTP_UNLOCK_METHOD": "UNLOCK",
            "TF_HTTP_USERNAME": self._user,
            "TF_HTTP_PASSWORD": Secret(self._password),
            # With the engine gone nobody will answer: the tool shall save beside itself soon, not wait.
            "TF_HTTP_RETRY_MAX": "1",
            "TF_HTTP_RETRY_WAIT_MIN": "1",
            "TF_HTTP_RETRY_WAIT_MAX": "1",
            "TF_HTTP_SKIP_CERT_VERIFICATION": "false",
            "TF_HTTP_CLIENT_CA_CERTIFICATE_PEM": "",
            "TF_HTTP_CLIENT_CERTIFICATE_PEM": "",
            "TF_HTTP_CLIENT_PRIVATE_KEY_PEM": "",
        }

    async def answer(self, incoming: Incoming) -> tuple[int, bytes]:
        """The status and body that a request gets; one request at a time."""
        if incoming.path != _PATH:
            return 404, b""
        async with self._turn:
            decision = decide(self._ledger, Request(incoming.method, incoming.query.get("ID", ""), incoming.body))
            if decision.deed is not None and self._perform is not None:
                try:
                    await self._perform(decision.deed)
                except SkyspanError as error:
                    self._failure = self._failure or error
                    status = 409 if isinstance(error, FencedError) else 503
                    self._note(Refusal(incoming.method, status, error.summary))
                    return status, error.summary.encode()
            self._ledger = decision.after
            if incoming.method == Method.LOCK:
                self.obstacle = None
            if decision.why:
                lock = self._ledger.lock if incoming.method == Method.LOCK else None
                self._note(Refusal(incoming.method, decision.status, decision.why, lock))
            return decision.status, decision.body

    def _note(self, refusal: Refusal) -> None:
        self.obstacle = refusal.lock or self.obstacle
        if refusal != self._told:  # One who waits for the lock asks every second.
            self._told = refusal
            self._tell(refusal)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections[writer] = asyncio.current_task()
        credentials = "Basic " + base64.b64encode(f"{self._user}:{self._password}".encode()).decode()
        try:
            with contextlib.suppress(ConnectionError):
                await self._exchange(reader, writer, credentials)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            # Whoever runs the command raises it; the command just finds nobody here.
            self._failure = self._failure or error
        finally:
            self._connections.pop(writer, None)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, credentials: str) -> None:
        while True:
            try:
                incoming = await read_request(reader, self._limit, credentials)
            except Malformed as error:
                writer.write(response(error.status, str(error).encode()))
                await writer.drain()
                return
            if incoming is None:
                return
            writer.write(response(*await self.answer(incoming)))
            await writer.drain()

    async def serve(self) -> asyncio.Server:
        """Begin to listen on a free port of the loopback interface."""
        server = await asyncio.start_server(self._converse, "127.0.0.1", 0, limit=_BUFFER)
        self._port = server.sockets[0].getsockname()[1]
        return server

    async def hang_up(self) -> None:
        """End every conversation and wait for that."""
        talking = [task for task in self._connections.values() if task is not None]
        for writer in tuple(self._connections):
            writer.close()
        if talking:
            await asyncio.wait(talking, timeout=_HANG_UP_S)


def _say_nothing(_: Refusal) -> None:
    """Nobody wants to hear of refusals."""


@contextlib.asynccontextmanager
async def serving(limit: int = SIZE_LIMIT) -> AsyncIterator[Endpoint]:
    """An endpoint for the time of the block."""
    endpoint = Endpoint(limit)
    server = await endpoint.serve()
    try:
        yield endpoint
    finally:
        server.close()
        await endpoint.hang_up()
        await server.wait_closed()
