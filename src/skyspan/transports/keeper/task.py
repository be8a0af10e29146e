"""Owns one command inside the keeper: its process, its pipes, its kept output, and who wants to hear of it."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

from skyspan.transports.keeper.identity import alive, began
from skyspan.transports.keeper.output import OutputWriter

LINGER_S = 0.5
"""How long output is still read after the end while something that was started holds the pipes open."""

HELD_BYTES = 64 * 2**20
"""Output ahead of an engine that reads; then the command waits, as it would for any slow pipe."""

_CHUNK = 65536


class Task:
    """A command. `exit` is None while it runs, and for ever when nobody can know: its keeper was killed."""

    def __init__(self, key: tuple[str, str, int, int], digest: str, log: str) -> None:
        self.key = key
        self.digest = digest
        self.ladder: list[float] = [10.0, 5.0]
        self.mark = ""
        self.pid = 0
        self.began = ""
        self.exit: int | None = None
        self.over = False
        self.stopping = False
        self.until = 0.0
        self.output = OutputWriter(log)
        self.watchers: dict[tuple[Any, int], int] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._pipes: dict[int, int] = {}
        self._listening = False
        self._stdin = memoryview(b"")

    def line(self, **more: Any) -> dict[str, Any]:
        """A line about it for the journal."""
        return {"stage": self.key[1], "attempt": self.key[2], "n": self.key[3], **more}

    def record(self) -> dict[str, Any]:
        """What engines are told of it."""
        told = {"digest": self.digest, "pid": self.pid, "over": self.over, "exit": self.exit, "ladder": self.ladder}
        told["mark"] = self.mark
        orphan = self._process is None and self.exit is None
        return self.line(at=[self.output.segment, self.output.offset], orphan=orphan, **told)

    def start(self, argv: list[str], how: dict[str, Any], stdin: bytes) -> None:
        """Start the process. Raises OSError or ValueError as `subprocess.Popen` does."""
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            **how,
        )
        self._process, self.pid, self._stdin = process, process.pid, memoryview(stdin)
        try:
            self.began = began(process.pid)
            self._pidfd = os.pidfd_open(process.pid)
        except OSError:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise

    def watch(
        self, selector: selectors.BaseSelector, ended: Callable[[Task], None], heard: Callable[[Task], None]
    ) -> None:
        """From now on pass on its input and output; `heard` after each piece, `ended` at the end of the process."""
        selector.register(self._pidfd, selectors.EVENT_READ, lambda _: ended(self))
        process = self._process
        if process is None or process.stdout is None or process.stderr is None:
            return
        for stream, pipe in ((1, process.stdout), (2, process.stderr)):
            os.set_blocking(pipe.fileno(), False)
            self._pipes[pipe.fileno()] = stream
        self.listen(selector, heard)
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)
            selector.register(process.stdin.fileno(), selectors.EVENT_WRITE, lambda _: self._feed(selector))

    def adopt(self) -> None:
        """Take over what another keeper started: its end can be seen, its exit status cannot."""
        self.output.take_over()
        if not self.over:
            self.over = True
            if alive(self.pid, self.began):
                with contextlib.suppress(ProcessLookupError):
                    self._pidfd = os.pidfd_open(self.pid)
                    self.over = False

    def listen(self, selector: selectors.BaseSelector, heard: Callable[[Task], None]) -> None:
        """Listen to its pipes, unless an engine that reads is too far behind."""
        ahead = self.output.total - min(self.watchers.values()) if self.watchers else 0
        wanted = ahead < HELD_BYTES
        if wanted == self._listening:
            return
        self._listening = wanted
        for pipe in self._pipes:
            if wanted:
                selector.register(pipe, selectors.EVENT_READ, lambda fd: self._hear(fd, selector, heard))
            else:
                selector.unregister(pipe)

    def collect(self, selector: selectors.BaseSelector) -> bool:
        """The process has ended: take its status. Whether its output has ended too."""
        selector.unregister(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        if self.stopping and self._process is not None:
            # Before it is collected, while its id, which is its group's, cannot belong to anybody else.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        if self._process is not None:
            self.exit = self._process.wait()
        self.until = time.monotonic() + LINGER_S
        return not self._pipes

    @property
    def silent(self) -> bool:
        """Whether all of its output was read."""
        return not self._pipes

    def drain(self, selector: selectors.BaseSelector) -> None:
        """Read what its pipes hold now, and close those that have ended."""
        for pipe in tuple(self._pipes):
            # A pipe holds 1 MiB at most; what was started in the background may go on writing for ever.
            for _ in range(2**20 // _CHUNK):
                if not self._read(pipe, selector):
                    break

    def finish(self, selector: selectors.BaseSelector) -> None:
        """Nothing more is read."""
        for pipe in tuple(self._pipes):
            self._close(pipe, selector)
        self._end_input(selector)
        self.output.close()
        self.over = True

    def signal(self, number: int, *, group: bool) -> None:
        """Signal it, or all of its group; from now on it is being stopped."""
        self.stopping = True
        ours = self._process is not None and self._process.returncode is None
        if ours or (self._process is None and alive(self.pid, self.began)):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                (os.killpg if group else os.kill)(self.pid, number)

    def _hear(self, pipe: int, selector: selectors.BaseSelector, heard: Callable[[Task], None]) -> None:
        self._read(pipe, selector)
        self.output.drop_read(min(self.watchers.values(), default=0))
        self.listen(selector, heard)
        heard(self)

    def _read(self, pipe: int, selector: selectors.BaseSelector) -> bool:
        try:
            data = os.read(pipe, _CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if data:
            self.output.add(self._pipes[pipe], data)
            return True
        self._close(pipe, selector)
        return False

    def _close(self, pipe: int, selector: selectors.BaseSelector) -> None:
        del self._pipes[pipe]
        if self._listening:
            selector.unregister(pipe)
        process = self._process
        for file in (process.stdout, process.stderr) if process is not None else ():
            if file is not None and not file.closed and file.fileno() == pipe:
                file.close()

    def _feed(self, selector: selectors.BaseSelector) -> None:
        """Write what the pipe takes; a command that closes its input has read enough."""
        assert self._process is not None and self._process.stdin is not None
        try:
            self._stdin = self._stdin[os.write(self._process.stdin.fileno(), self._stdin[:_CHUNK]) :]
        except BlockingIOError:
            return
        except OSError:
            self._stdin = memoryview(b"")
        if not self._stdin:
            self._end_input(selector)

    def _end_input(self, selector: selectors.BaseSelector) -> None:
        pipe = self._process.stdin if self._process is not None else None
        if pipe is not None and not pipe.closed:
            selector.unregister(pipe.fileno())
            pipe.close()
