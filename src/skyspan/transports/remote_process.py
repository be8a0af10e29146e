"""Owns one command on the far side of an SSH connection: its start, its output, its end and its stop."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from skyspan.contracts.transport import Command, Completed, OnOutput, Stream
from skyspan.model.error import SpecError, StageError, ToolFailedError, ToolMissingError, UnreachableError
from skyspan.transports.arguments import revealed_argv, revealed_env, revealed_stdin
from skyspan.transports.ladder import climb
from skyspan.transports.output import KeptOutput
from skyspan.transports.remote_shell import BOOTSTRAP, Word, remnant_script, signal_script, starting_line

LINGER_S = 1.0
"""How long silence is awaited after the exit status while something that the command started holds its pipes open."""

LINGER_LIMIT_S = 30.0
"""How long output is read after the exit status at most, as what was started may go on writing for ever."""

_NOISE_LIMIT = 2**20
_CONTROL_TIMEOUT_S = 10.0
_STDERR = 1

Control: TypeAlias = Callable[[str], Awaitable[None]]
"""Runs a short shell line on the far side, beside the command; raises StageError when that cannot be done."""


class RemoteProcess:
    """A command in a session of an `asyncssh.SSHClientConnection`, and that session's callbacks.

    `begin` starts it. Its process id is the far side's; it leads a group there, as OpenSSH gives each session one.
    """

    def __init__(self, place: str, control: Control, command: Command, on_output: OnOutput | None) -> None:
        self._place = place
        self._control = control
        self._command = command
        self._on_output = on_output
        self._marker = secrets.token_hex(8).encode()
        self._noise = b""
        self._word: Word | None = None
        self._pid = 0
        self._exit_code: int | None = None
        self._channel: Any = None
        self._kept = {Stream.OUT: KeptOutput(), Stream.ERR: KeptOutput()}
        self._began = self._heard = time.monotonic()
        loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = loop.create_future()
        self._exited: asyncio.Future[None] = loop.create_future()
        self._closed: asyncio.Future[None] = loop.create_future()

    @property
    def pid(self) -> int:
        return self._pid

    @property
    def remnant(self) -> str | None:
        """After the connection broke: the shell line that ends what is left running; None when nothing can be."""
        if self._word is not Word.STARTED or self._exit_code is not None or not self._closed.done():
            return None
        ladder = self._command.ladder
        return remnant_script(self._marker.decode(), self._pid, ladder.first_s, ladder.second_s)

    async def begin(self, connection: Any) -> None:
        """Open a session of `connection` and start the command.

        Raises asyncssh's errors while nothing has been started, SpecError for what cannot be passed on.
        """
        command = self._command
        try:
            line = starting_line(
                self._marker.decode(), revealed_argv(command), revealed_env(command.env), command.cwd
            ).encode(errors="surrogateescape")
        except ValueError as error:
            raise SpecError(f"cannot run `{command.display()}` on {self._place}: {error}") from error
        self._channel, _ = await connection.create_session(lambda: self, BOOTSTRAP, encoding=None)
        with contextlib.suppress(BrokenPipeError, OSError):
            self._channel.write(line)
            self._channel.write(revealed_stdin(command) or b"")
            self._channel.write_eof()

    async def wait(self) -> Completed:
        """Wait for its end and its output. Cancelling this leaves it running.

        Raises ToolMissingError and SpecError when it could not start, UnreachableError when the connection broke."""
        await asyncio.wait({self._exited})
        limit = time.monotonic() + LINGER_LIMIT_S
        while not self._closed.done() and time.monotonic() < min(limit, self._heard + LINGER_S):
            await asyncio.wait({self._closed}, timeout=LINGER_S / 4)
        self._channel.close()
        if self._word is not Word.STARTED:
            raise self._not_started()
        if self._exit_code is None:
            raise UnreachableError(
                f"the connection to {self._place} broke while `{self._command.display()}` ran there",
                hint="whether it finished is unknown: look before you repeat it",
            )
        return Completed(
            exit_code=self._exit_code,
            stdout=self._kept[Stream.OUT].whole(),
            stderr=self._kept[Stream.ERR].whole(),
            duration_s=time.monotonic() - self._began,
        )

    async def stop(self) -> Completed:
        """Stop it by its ladder and wait; what it leaves behind in its group is killed. Harmless when it has ended."""
        running = not self._exited.done()
        starting = {self._ready, self._exited}
        try:
            # Cancelled while it starts: its id, which signals need, arrives in a moment.
            await asyncio.wait(starting, timeout=_CONTROL_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
            await climb(self._command.ladder, self._exited, self._interrupt, self._kill, self._tell)
            if running:
                await self._kill()
        finally:
            self._channel.close()
        return await self.wait()

    async def _interrupt(self) -> None:
        await self._signal("INT", whole_group=False)

    async def _kill(self) -> None:
        await self._signal("KILL", whole_group=True)

    def _tell(self, text: str) -> None:
        if self._on_output is not None:
            self._on_output(Stream.ERR, f"skyspan: {text}\n".encode())

    async def _signal(self, name: str, *, whole_group: bool) -> None:
        """Signal by a session of its own: OpenSSH's signal request goes to the whole group, and not at all for root."""
        if self._pid:
            with contextlib.suppress(StageError, TimeoutError):
                async with asyncio.timeout(_CONTROL_TIMEOUT_S):
                    await self._control(signal_script(name, self._pid, whole_group=whole_group))

    def _not_started(self) -> StageError:
        command, place = self._command, self._place
        if self._word is Word.NO_FOLDER:
            return SpecError(f"cannot run `{command.display()}` on {place}: its folder {command.cwd} cannot be entered")
        if self._word is Word.NO_TOOL:
            tool = command.argv[0] if isinstance(command.argv[0], str) else "the program"
            return ToolMissingError(
                f"{tool} is not installed on {place}",
                detail=f"cannot run `{command.display()}`",
                hint=f"install {tool} there or add it to the PATH of a non-interactive shell",
            )
        if self._exit_code is None:
            return UnreachableError(f"the connection to {place} broke before `{command.display()}` started there")
        said = (self._noise + self._kept[Stream.ERR].whole())[-2000:].decode(errors="replace").strip()
        return ToolFailedError(
            f"{place} did not start `{command.display()}`: its login shell ended with {self._exit_code}",
            detail=said,
            hint="the account needs a shell that runs `/bin/sh`",
        )

    # What follows is called by asyncssh.

    def connection_made(self, chan: Any) -> None:
        self._channel = chan

    def session_started(self) -> None:
        self._began = time.monotonic()

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._heard = time.monotonic()
        if datatype == _STDERR:
            self._take(Stream.ERR, data)
        elif self._word is not None:
            self._take(Stream.OUT, data)
        else:
            self._await_marker(data)

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        """Standard input is handed over whole, so there is nobody to pause."""

    def resume_writing(self) -> None:
        """See `pause_writing`."""

    def exit_status_received(self, status: int) -> None:
        self._end(status)

    def exit_signal_received(self, name: str, core_dumped: bool, msg: str, lang: str) -> None:
        known = getattr(signal, f"SIG{name}", signal.SIGKILL)
        self._end(-int(known))

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(self._exit_code)
        if not self._closed.done():
            self._closed.set_result(None)

    def _end(self, exit_code: int | None) -> None:
        self._heard = time.monotonic()
        self._exit_code = exit_code
        if not self._exited.done():
            self._exited.set_result(None)

    def _await_marker(self, data: bytes) -> None:
        """Take what precedes the marker line for the chatter of the login shell's start-up files."""
        self._noise += data
        start = self._noise.find(self._marker)
        end = self._noise.find(b"\n", start)
        if start < 0 or end < 0:
            self._noise = self._noise[-_NOISE_LIMIT:]
            return
        _, word, pid = self._noise[start:end].decode().split()
        rest, self._noise = self._noise[end + 1 :], self._noise[:start]
        self._word, self._pid = Word(word), int(pid)
        if not self._ready.done():
            self._ready.set_result(None)
        if rest:
            self._take(Stream.OUT, rest)

    def _take(self, stream: Stream, data: bytes) -> None:
        self._kept[stream].add(data)
        if self._on_output is not None:
            self._on_output(stream, data)
