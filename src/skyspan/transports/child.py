"""Owns one child process of this machine: its start, its pipes, its end and the way to stop it.

A child is started with vfork (`subprocess.Popen`) and its end is seen through a pidfd, so that it costs neither a
thread nor a signal handler. It leads a session of its own: signals meant for the terminal do not reach it, and its
whole group can be killed. It outlives us unless it is stopped: PR_SET_PDEATHSIG would tie its life to that of a thread.
What it left behind on purpose (a daemon) goes on after it has ended by itself, and is ended when it is stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence

from skyspan.contracts.transport import Command, Completed, OnOutput, StopLadder, Stream
from skyspan.transports.arguments import revealed_argv, revealed_stdin
from skyspan.transports.descendants import Descendant, descendants, kill_descendants, marked, new_mark
from skyspan.transports.ladder import climb
from skyspan.transports.output import KeptOutput

LINGER_S = 0.5
"""How long output is still read after the child ended while something that it started holds its pipes open."""

_CHUNK = 65536


class Child:
    """A running command (a `contracts.transport.Process`)."""

    def __init__(self, command: Command, env: Mapping[str, str], cwd: str | None, on_output: OnOutput | None) -> None:
        """Start it. Raises OSError or ValueError as `subprocess.Popen` does."""
        self._ladder: StopLadder = command.ladder
        self._loop = asyncio.get_running_loop()
        self._started = time.monotonic()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._drained: asyncio.Future[None] = self._loop.create_future()
        self._stopping = False
        self._mark = new_mark()
        self._mid_line = False
        self._open_pipes: set[int] = set()
        self._on_output = on_output
        self._kept = {Stream.OUT: KeptOutput(), Stream.ERR: KeptOutput()}
        stdin = revealed_stdin(command)
        self._process = subprocess.Popen(
            revealed_argv(command),
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=marked(env, self._mark),
            bufsize=0,
            start_new_session=True,
        )
        try:
            self._watch(stdin or b"")
        except OSError:
            # No descriptor left for the pidfd: what cannot be watched must not run.
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
            self._close_pipes()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait(self) -> Completed:
        """Wait for its end and its output. Cancelling this leaves it running."""
        await asyncio.shield(self._ended)
        if not self._drained.done():
            await asyncio.wait({self._drained}, timeout=LINGER_S)
        self._close_pipes()
        return Completed(
            exit_code=self._process.returncode,
            stdout=self._kept[Stream.OUT].whole(),
            stderr=self._kept[Stream.ERR].whole(),
            duration_s=time.monotonic() - self._started,
        )

    async def stop(self) -> Completed:
        """Stop it by its ladder and wait; what it leaves behind is killed, daemons too. Harmless when it has ended.

        Each step is told as a line of its standard error, to whoever listens; it is not part of the result."""
        self._stopping = running = not self._ended.done()
        # Now, while parents are known: what loses them by ending in order would not be found afterwards.
        below = descendants(self._mark, self.pid) if running else ()
        try:
            await climb(self._ladder, self._ended, self._interrupt, self._kill, self._tell)
        except asyncio.CancelledError:
            self._close_pipes()
            raise
        finally:
            if running:
                self._kill_all(below)
        return await self.wait()

    def _watch(self, stdin: bytes) -> None:
        # stderr and stdout are not None: both are pipes.
        outputs = ((self._process.stdout, Stream.OUT), (self._process.stderr, Stream.ERR))
        for file, stream in outputs:
            if file is not None:
                descriptor = file.fileno()
                os.set_blocking(descriptor, False)
                self._open_pipes.add(descriptor)
                self._loop.add_reader(descriptor, self._read, descriptor, stream)
        pidfd = os.pidfd_open(self.pid)
        self._loop.add_reader(pidfd, self._reap, pidfd)
        if self._process.stdin is not None:
            os.set_blocking(self._process.stdin.fileno(), False)
            self._write(memoryview(stdin))

    def _write(self, rest: memoryview) -> None:
        """Write what the pipe takes and come back for the rest; a child that closes its input has read enough."""
        file = self._process.stdin
        if file is None or file.closed:
            return
        try:
            rest = rest[os.write(file.fileno(), rest) :]
        except BlockingIOError:
            pass
        except OSError:
            rest = rest[:0]
        self._loop.remove_writer(file.fileno())
        if rest:
            self._loop.add_writer(file.fileno(), self._write, rest)
        else:
            file.close()

    def _read(self, descriptor: int, stream: Stream) -> None:
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close_pipe(descriptor)
            return
        self._kept[stream].add(data)
        if stream is Stream.ERR:
            self._mid_line = not data.endswith(b"\n")
        if self._on_output is not None:
            self._on_output(stream, data)

    def _reap(self, pidfd: int) -> None:
        self._loop.remove_reader(pidfd)
        os.close(pidfd)
        if self._stopping:
            # Before it is reaped, while its id, which is its group's, cannot belong to anybody else.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        if not self._ended.done():
            self._ended.set_result(None)

    async def _interrupt(self) -> None:
        # Popen knows whether it was reaped, so this never reaches a stranger.
        self._process.send_signal(signal.SIGINT)

    async def _kill(self) -> None:
        if self._process.returncode is None:
            below = descendants(self._mark, self.pid)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            self._kill_all(below)

    def _kill_all(self, known: Sequence[Descendant]) -> None:
        """End what is left of all that it started, in whatever session that is by now."""
        killed = kill_descendants(self._mark, known)
        if killed:
            named = ", ".join(f"{one.pid} ({one.name})" for one in killed)
            self._tell(f"killed what it had started: {named}")

    def _tell(self, text: str) -> None:
        if self._on_output is not None:
            start = "\n" if self._mid_line else ""
            self._mid_line = False
            self._on_output(Stream.ERR, f"{start}skyspan: {text}\n".encode())

    def _close_pipes(self) -> None:
        for descriptor in tuple(self._open_pipes):
            self._close_pipe(descriptor)
        file = self._process.stdin
        if file is not None and not file.closed:
            self._loop.remove_writer(file.fileno())
            file.close()

    def _close_pipe(self, descriptor: int) -> None:
        self._open_pipes.discard(descriptor)
        self._loop.remove_reader(descriptor)
        for file in (self._process.stdout, self._process.stderr):
            if file is not None and not file.closed and file.fileno() == descriptor:
                file.close()
        if not self._open_pipes and not self._drained.done():
            self._drained.set_result(None)
