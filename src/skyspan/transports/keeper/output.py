"""Owns the kept output of one command: frames (stream, length, data) in segments of bounded size.

Writing and reading are in different processes: the keeper writes, engines read by the place (segment, offset) that
they were told last. When there is too much, segments in the middle are dropped, never the first or the newest.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator

SEGMENT_BYTES = 16 * 2**20
MOST_SEGMENTS = 64

_FRAME = struct.Struct(">BI")


def segment_path(log: str, segment: int) -> str:
    """Where a segment of the log `log` is."""
    return f"{log}.{segment}"


class OutputWriter:
    """The keeper's end of a log. Nothing is made before there is output."""

    def __init__(self, log: str) -> None:
        self._log = log
        self.segment = 0
        self.offset = 0
        self.total = 0
        self._file = -1
        self._first_kept = 1

    def take_over(self) -> None:
        """Go on behind what another keeper wrote."""
        while os.path.exists(segment_path(self._log, self.segment + 1)):  # noqa: PTH110 - without pathlib, see main
            self.segment += 1
        with contextlib.suppress(FileNotFoundError):
            self.offset = os.stat(segment_path(self._log, self.segment)).st_size  # noqa: PTH116
        self.total = self.segment * SEGMENT_BYTES + self.offset

    def add(self, stream: int, data: bytes) -> None:
        """Keep `data` of `stream` (1 or 2). Without room for it, it is lost."""
        if self.offset >= SEGMENT_BYTES:
            self.close()
            self.segment, self.offset = self.segment + 1, 0
        with contextlib.suppress(OSError):
            if self._file < 0:
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
                self._file = os.open(segment_path(self._log, self.segment), flags, 0o600)
            frame = _FRAME.pack(stream, len(data)) + data
            written = os.write(self._file, frame)
            if written < len(frame):
                # No room: a frame cut short would make the rest unreadable.
                os.ftruncate(self._file, self.offset)
                return
            self.offset += written
            self.total += len(data)

    def drop_read(self, read: int) -> None:
        """Drop middle segments that are older than `read` bytes of output, or too many."""
        while self._first_kept < self.segment and (
            (self._first_kept + 1) * SEGMENT_BYTES < read or self.segment - self._first_kept > MOST_SEGMENTS
        ):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(segment_path(self._log, self._first_kept))  # noqa: PTH108
            self._first_kept += 1

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def remove(self) -> None:
        """Remove all of it."""
        self.close()
        for segment in (0, *range(self._first_kept, self.segment + 1)):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(segment_path(self._log, segment))  # noqa: PTH108


class OutputReader:
    """An engine's end of a log, from its first byte. `missed` tells whether something in between was dropped."""

    def __init__(self, log: str) -> None:
        self._log = log
        self._segment = 0
        self._file = -1
        self._rest = b""
        self.read = 0
        self.missed = False

    def until(self, segment: int, offset: int) -> Iterator[tuple[int, bytes]]:
        """Streams and their data up to a place; what comes behind it is left for the next call."""
        if segment == 0 and offset == 0:
            return
        while True:
            yield from self._frames()
            if self._segment >= segment:
                return
            self._next()

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _next(self) -> None:
        self.close()
        self._segment += 1
        self._rest = b""

    def _frames(self) -> Iterator[tuple[int, bytes]]:
        if self._file < 0:
            try:
                self._file = os.open(segment_path(self._log, self._segment), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                self.missed = True
                return
        while data := os.read(self._file, 2**20):
            data = self._rest + data
            place = 0
            while place + _FRAME.size <= len(data):
                stream, length = _FRAME.unpack_from(data, place)
                end = place + _FRAME.size + length
                if end > len(data):
                    break
                self.read += length
                yield stream, data[place + _FRAME.size : end]
                place = end
            self._rest = data[place:]
