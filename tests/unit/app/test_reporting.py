"""What stages say, on its way to the log: whole lines, redacted, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from skyspan.app.reporting import RunLog, StageReporter
from skyspan.contracts.store import LogLine
from skyspan.contracts.transport import Stream
from skyspan.model.error import StoreUnavailableError
from skyspan.model.secret import Secret
from skyspan.secrets.redactor import Redactor
from skyspan.testing.fake_clock import FakeClock


class Lines:
    """A log that keeps what it is given, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.lines: list[LogLine] = []
        self.calls = 0
        self._error = error

    async def append_log(self, lines: Sequence[LogLine]) -> None:
        self.calls += 1
        await asyncio.sleep(0)
        if self._error is not None:
            raise self._error
        self.lines += lines

    async def log(self, run_id: str, stage: str | None = None, after: int = 0, limit: int = 1000) -> list[LogLine]:
        return self.lines

    def texts(self) -> list[tuple[str, str]]:
        return [(line.stream, line.text) for line in self.lines]


def reporter(kept: Lines, redactor: Redactor | None = None) -> tuple[RunLog, StageReporter]:
    log = RunLog("run-1", kept, FakeClock(), lambda _stage, _text: None)
    return log, StageReporter("a", 1, log, redactor or Redactor(), None)


async def test_lines_come_whole_and_each_stream_has_its_own() -> None:
    kept = Lines()
    log, told = reporter(kept)
    told.output(Stream.OUT, b"first ha")
    told.output(Stream.ERR, b"trouble\n")
    told.output(Stream.OUT, b"lf\r\nlast without end")
    told.line("of our own\nin two")
    told.close()
    await log.close()
    assert kept.texts() == [
        ("err", "trouble"), ("out", "first half"), ("out", "of our own"), ("out", "in two"), ("out", "last without end")
    ]  # fmt: skip


async def test_a_secret_is_masked_wherever_the_stream_is_cut() -> None:
    data = b"before hunter2-hunter2 after\n"
    for cut in range(len(data)):
        kept, redactor = Lines(), Redactor()
        redactor.learn(Secret("hunter2-hunter2"))
        log, told = reporter(kept, redactor)
        told.output(Stream.OUT, data[:cut])
        told.output(Stream.OUT, data[cut:])
        told.close()
        await log.close()
        assert kept.texts() == [("out", "before *** after")]


async def test_a_secret_that_is_concealed_later_is_masked_from_then_on() -> None:
    kept = Lines()
    log, told = reporter(kept)
    told.line("hunter2-hunter2")
    told.conceal(Secret("hunter2-hunter2"))
    told.line("hunter2-hunter2")
    await log.close()
    assert [text for _, text in kept.texts()] == ["hunter2-hunter2", "***"]


async def test_odd_bytes_and_endless_lines_do_no_harm() -> None:
    kept = Lines()
    log, told = reporter(kept)
    told.output(Stream.OUT, b"\xff\xfe nul \x00 end\n")
    for _ in range(10):
        told.output(Stream.OUT, b"x" * 10_000)
    told.close()
    await log.close()
    assert kept.lines[0].text == "�� nul � end"
    assert sum(len(line.text) for line in kept.lines[1:]) == 100_000
    assert all(len(line.text) < 40_000 for line in kept.lines)


async def test_many_lines_are_written_together() -> None:
    kept = Lines()
    log, told = reporter(kept)
    for number in range(1000):
        told.line(str(number))
    await log.close()
    assert [line.text for line in kept.lines] == [str(number) for number in range(1000)]
    assert kept.calls < 10


async def test_a_log_that_cannot_be_written_is_told_once_at_the_end() -> None:
    kept = Lines(StoreUnavailableError("no space left", hint="make room"))
    log, told = reporter(kept)
    told.line("lost")
    await asyncio.sleep(0.15)
    told.line("lost too")
    with pytest.raises(StoreUnavailableError, match="the log of run run-1 is not complete: no space left") as caught:
        await log.close()
    assert "make room" in caught.value.hint
    assert "skyspan show run-1" in caught.value.hint
    assert kept.calls == 1
