"""Reports of stages on their way to the log and the screen: every byte passes the redactor first."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Sequence
from pathlib import Path

from skyspan.app.backlog import Backlog
from skyspan.app.heard import Heard
from skyspan.contracts.context import Clock
from skyspan.contracts.engine import Journal
from skyspan.contracts.store import LogWriter
from skyspan.contracts.transport import Stream
from skyspan.model.error import StoreUnavailableError
from skyspan.model.event import StageProgressed
from skyspan.model.secret import Secret
from skyspan.secrets.redactor import RedactingStream, Redactor

OnLine = Callable[[str, str], None]
"""Called with the stage's name and a redacted line."""

_FLUSH_AFTER_S = 0.1
_LONGEST_LINE = 16 * 1024


class RunLog:
    """The merged log of one run: collects lines and writes them in the background, in order.

    A failing write is kept and raised by `close`, so that a full disk is told once and not by every line.
    """

    def __init__(
        self,
        run_id: str,
        store: LogWriter,
        clock: Clock,
        on_line: OnLine,
        reached: Callable[[str], None] = lambda _point: None,
        folder: Path | None = None,
    ) -> None:
        """`folder` is where lines wait that come faster than the store takes them."""
        self._run_id, self._store, self._clock, self._on_line = run_id, store, clock, on_line
        self._reached = reached
        self._backlog = Backlog(run_id, folder)
        self._writing: asyncio.Task[None] | None = None
        self._failure: Exception | None = None

    def add(self, stage: str, attempt: int, stream: Stream, texts: Sequence[str]) -> None:
        """Add redacted lines."""
        for text in texts:
            self._on_line(stage, text)
        if self._failure is not None or not texts:
            return
        try:
            self._backlog.add((stage, attempt, stream.value), self._clock.now(), texts)
        except OSError as error:
            self._fail(_no_room(error))
            return
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write_soon())

    async def close(self) -> None:
        """Write what is left. Raises StoreUnavailableError when any line could not be written."""
        while self._writing is not None:
            await self._writing
        self._backlog.clear()
        if isinstance(self._failure, StoreUnavailableError):
            raise StoreUnavailableError(
                f"the log of run {self._run_id} is not complete: {self._failure.summary}",
                detail=self._failure.detail,
                hint=f"{self._failure.hint}\nHow the run itself ended: skyspan show {self._run_id}",
            )
        if self._failure is not None:
            raise self._failure

    async def _write_soon(self) -> None:
        try:
            if not self._backlog.full:
                await asyncio.sleep(_FLUSH_AFTER_S)
            while self._backlog:
                blocks = self._backlog.take()
                self._reached("log.before")
                await asyncio.gather(*map(self._store.append_log, blocks))
                self._reached("log.after")
        except OSError as error:
            self._fail(_no_room(error))
        except Exception as error:
            self._fail(error)
        finally:
            self._writing = None

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._backlog.clear()


def _no_room(error: OSError) -> StoreUnavailableError:
    full = error.errno == errno.ENOSPC
    what = "no space is left on the disk of the home" if full else str(error.strerror)
    return StoreUnavailableError(
        f"{what}: log lines that wait for the store cannot be kept",
        hint="Free some space, then repeat the command: everything recorded so far is kept.",
    )


class StageReporter:
    """What one attempt at one stage says; implements `contracts.context.Reporter`."""

    def __init__(
        self,
        stage: str,
        attempt: int,
        log: RunLog,
        redactor: Redactor,
        journal: Journal | None,
        heard: Heard | None = None,
    ) -> None:
        """`heard` is what the log holds of the attempt already: when that comes again, it is not added again."""
        self._stage, self._attempt, self._log = stage, attempt, log
        self._redactor, self._journal, self._heard = redactor, journal, heard
        self._streams: dict[Stream, _LineStream] = {}

    def line(self, text: str, stream: Stream = Stream.OUT) -> None:
        """A log line of the stage."""
        self._add(stream, self._redactor.text(text).splitlines() or [""])

    def output(self, stream: Stream, data: bytes) -> None:
        """Raw output of a child."""
        if stream not in self._streams:
            self._streams[stream] = _LineStream(self._redactor.stream())
        self._add(stream, self._streams[stream].feed(data))

    def progress(self, address: str, action: str, state: str, detail: str = "") -> None:
        """A resource moved."""
        if self._journal is not None:
            told = self._redactor.text
            self._journal.note(StageProgressed(self._stage, self._attempt, told(address), action, state, told(detail)))

    def conceal(self, secret: Secret) -> None:
        """From now on mask this value wherever it appears."""
        self._redactor.learn(secret)

    def close(self) -> None:
        """The attempt is over: give out unfinished last lines."""
        for stream, lines in self._streams.items():
            self._add(stream, lines.flush())
        self._streams = {}

    def _add(self, stream: Stream, texts: Sequence[str]) -> None:
        if self._heard is not None:
            texts = [text for text in texts if not self._heard.knows(stream.value, text)]
        self._log.add(self._stage, self._attempt, stream, texts)


class _LineStream:
    """Makes redacted lines of raw bytes; a line without end is cut so that memory stays bounded."""

    def __init__(self, stream: RedactingStream) -> None:
        self._stream = stream
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        whole, newline, self._rest = (self._rest + self._stream.feed(data)).rpartition(b"\n")
        lines = _texts(whole) if newline else []
        # At fixed places, so that the same output makes the same lines wherever it was split.
        while len(self._rest) > _LONGEST_LINE:
            lines += _texts(self._rest[:_LONGEST_LINE])
            self._rest = self._rest[_LONGEST_LINE:]
        return lines

    def flush(self) -> list[str]:
        rest, self._rest = self._rest + self._stream.flush(), b""
        return _texts(rest) if rest else []


def _texts(lines: bytes) -> list[str]:
    """Lines as text. All at once: a newline is part of no other character, so each is decoded as it would be alone."""
    text = lines.decode(errors="replace")
    if "\x00" in text:
        text = text.replace("\x00", "�")
    texts = text.split("\n")
    return [line.rstrip("\r") for line in texts] if "\r" in text else texts
