"""Reports of stages on their way to the log and the screen: every byte passes the redactor first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from skyspan.contracts.context import Clock
from skyspan.contracts.engine import Journal
from skyspan.contracts.store import LogLine, LogStore
from skyspan.contracts.transport import Stream
from skyspan.model.error import StoreUnavailableError
from skyspan.model.event import StageProgressed
from skyspan.model.secret import Secret
from skyspan.secrets.redactor import RedactingStream, Redactor

OnLine = Callable[[str, str], None]
"""Called with the stage's name and a redacted line."""

_FLUSH_LINES = 500
_FLUSH_AFTER_S = 0.1
_LONGEST_LINE = 16 * 1024


class RunLog:
    """The merged log of one run: collects lines and writes them in the background, in order.

    A failing write is kept and raised by `close`, so that a full disk is told once and not by every line.
    """

    def __init__(self, run_id: str, store: LogStore, clock: Clock, on_line: OnLine) -> None:
        self._run_id, self._store, self._clock, self._on_line = run_id, store, clock, on_line
        self._lines: list[LogLine] = []
        self._writing: asyncio.Task[None] | None = None
        self._failure: Exception | None = None

    def add(self, stage: str, attempt: int, stream: Stream, text: str) -> None:
        """Add a redacted line."""
        self._on_line(stage, text)
        if self._failure is not None:
            return
        self._lines.append(LogLine(self._run_id, 0, self._clock.now(), stage, attempt, stream.value, text))
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write_soon())

    async def close(self) -> None:
        """Write what is left. Raises StoreUnavailableError when any line could not be written."""
        while self._writing is not None:
            await self._writing
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
            if len(self._lines) < _FLUSH_LINES:
                await asyncio.sleep(_FLUSH_AFTER_S)
            while self._lines:
                lines, self._lines = self._lines, []
                await self._store.append_log(lines)
        except Exception as error:
            self._failure = error
            self._lines = []
        finally:
            self._writing = None


class StageReporter:
    """What one attempt at one stage says; implements `contracts.context.Reporter`."""

    def __init__(self, stage: str, attempt: int, log: RunLog, redactor: Redactor, journal: Journal | None) -> None:
        self._stage, self._attempt, self._log = stage, attempt, log
        self._redactor, self._journal = redactor, journal
        self._streams: dict[Stream, _LineStream] = {}

    def line(self, text: str, stream: Stream = Stream.OUT) -> None:
        """A log line of the stage."""
        for part in self._redactor.text(text).splitlines() or [""]:
            self._log.add(self._stage, self._attempt, stream, part)

    def output(self, stream: Stream, data: bytes) -> None:
        """Raw output of a child."""
        if stream not in self._streams:
            self._streams[stream] = _LineStream(self._redactor.stream())
        for text in self._streams[stream].feed(data):
            self._log.add(self._stage, self._attempt, stream, text)

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
            for text in lines.flush():
                self._log.add(self._stage, self._attempt, stream, text)
        self._streams = {}


class _LineStream:
    """Makes redacted lines of raw bytes; a line without end is cut so that memory stays bounded."""

    def __init__(self, stream: RedactingStream) -> None:
        self._stream = stream
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        *lines, self._rest = (self._rest + self._stream.feed(data)).split(b"\n")
        if len(self._rest) > _LONGEST_LINE:
            lines, self._rest = [*lines, self._rest], b""
        return [_text(line) for line in lines]

    def flush(self) -> list[str]:
        rest, self._rest = self._rest + self._stream.flush(), b""
        return [_text(line) for line in rest.split(b"\n")] if rest else []


def _text(line: bytes) -> str:
    return line.rstrip(b"\r").decode(errors="replace").replace("\x00", "�")
