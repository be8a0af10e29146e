"""Owns a transport that plays a script: each command is expected, answered and recorded; any other one fails loudly."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from skyspan.contracts.transport import Argument, Command, Completed, Connection, Effect, OnOutput, Stream
from skyspan.model.error import StageError, UnreachableError

Answer = Completed | StageError | Callable[[Command], Completed]
"""What a command gives: a result, an error it raises, or a result computed from it."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """A command that will come: its arguments begin with `argv` (compared by meaning, secrets included)."""

    argv: tuple[Argument, ...]
    answer: Answer

    def fits(self, command: Command) -> bool:
        """Whether `command` is the one expected."""
        return command.argv[: len(self.argv)] == self.argv


class ScriptedTransport:
    """A `Transport` that runs nothing. With `in_order`, commands must come as the script has them.

    `commands` holds everything that was run, `dialled` everything that was dialled, refused ones included.
    """

    def __init__(self, name: str = "here", *, in_order: bool = True) -> None:
        self._name = name
        self._in_order = in_order
        self._script: deque[Expectation] = deque()
        self._listening: dict[tuple[str, int], Connection | StageError] = {}
        self.commands: list[Command] = []
        self.dialled: list[tuple[str, int]] = []
        self.closed = False

    @property
    def name(self) -> str:
        return self._name

    def expect(self, *argv: Argument, gives: Answer | str | bytes = b"", times: int = 1) -> ScriptedTransport:
        """A command beginning with `argv` comes `times` times; text or bytes are its output, with exit status 0."""
        if isinstance(gives, str):
            gives = gives.encode()
        answer = Completed(0, gives) if isinstance(gives, bytes) else gives
        self._script.extend([Expectation(argv, answer)] * times)
        return self

    def listen(self, address: str, port: int, connection: Connection | StageError) -> ScriptedTransport:
        """Whoever dials this gets `connection`, or the error raised."""
        self._listening[address, port] = connection
        return self

    def finished(self) -> None:
        """Assert that every expected command came."""
        missing = [" ".join(map(repr, expectation.argv)) for expectation in self._script]
        assert not missing, f"{self._name}: these commands never came: {missing}"

    async def query(self, command: Command, on_output: OnOutput | None = None) -> Completed:
        if command.effect is not Effect.READ:
            msg = f"only reading is allowed here, and this command writes: {command.display()}"
            raise PermissionError(msg)
        return await self.run(command, on_output)

    async def run(self, command: Command, on_output: OnOutput | None = None) -> Completed:
        self.commands.append(command)
        # A real command gives others a turn too.
        await asyncio.sleep(0)
        answer = self._next(command).answer
        if isinstance(answer, StageError):
            raise answer
        completed = answer if isinstance(answer, Completed) else answer(command)
        if on_output is not None:
            for stream, data in ((Stream.OUT, completed.stdout), (Stream.ERR, completed.stderr)):
                if data:
                    on_output(stream, data)
        return completed

    async def dial(self, address: str, port: int, timeout_s: float) -> Connection:
        self.dialled.append((address, port))
        await asyncio.sleep(0)
        found = self._listening.get((address, port))
        if found is None:
            raise UnreachableError(f"{address} port {port} refused the connection")
        if isinstance(found, StageError):
            raise found
        return found

    async def close(self) -> None:
        self.closed = True

    def _next(self, command: Command) -> Expectation:
        candidates = list(self._script)[:1] if self._in_order else list(self._script)
        for expectation in candidates:
            if expectation.fits(command):
                self._script.remove(expectation)
                return expectation
        expected = [" ".join(map(repr, candidate.argv)) for candidate in candidates] or ["nothing more"]
        msg = f"{self._name}: unexpected command `{command.display()}`; expected {' or '.join(expected)}"
        raise AssertionError(msg)


@dataclass(slots=True)
class ScriptedConnection:
    """A `Connection` that gives `pieces` one by one, then the end, and keeps what was sent."""

    pieces: deque[bytes] = field(default_factory=deque)
    sent: bytes = b""
    closed: bool = False

    async def send(self, data: bytes) -> None:
        self.sent += data

    async def receive(self, limit: int = 65536) -> bytes:
        if not self.pieces:
            return b""
        piece = self.pieces.popleft()
        if len(piece) > limit:
            self.pieces.appendleft(piece[limit:])
        return piece[:limit]

    async def close(self) -> None:
        self.closed = True
