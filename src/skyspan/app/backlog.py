"""Owns log lines on their way to the store: in memory up to a limit, beyond it in a file without a name."""

from __future__ import annotations

import json
import tempfile
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, TypeAlias

from skyspan.contracts.store import LogBlock

MEMORY_BYTES = 4 * 2**20
"""About how much of a log waits in memory; as much again is being written."""

BLOCK_LINES = 500
_LINE_BYTES = 64
"""What a line takes in memory besides its text."""

Source: TypeAlias = tuple[str, int, str]
"""Stage, attempt, stream."""


class Backlog:
    """Lines in their order, as blocks of one source each. However many there are, memory holds a bounded part: a stage
    that prints faster than the disk writes must not take the engine's memory, and no line of it may be lost."""

    def __init__(self, run_id: str, folder: Path | None = None) -> None:
        """`folder` is where lines wait that memory has no room for; None is the system's place for such files."""
        self._run_id, self._folder = run_id, folder
        self._blocks: deque[_Block] = deque()
        self._size = 0
        self._file: BinaryIO | None = None
        self._read_to = self._written_to = 0

    def __bool__(self) -> bool:
        return bool(self._blocks) or self._read_to < self._written_to

    @property
    def full(self) -> bool:
        """Whether it is worth writing at once."""
        return bool(self._blocks) and (len(self._blocks) > 1 or len(self._blocks[0].texts) >= BLOCK_LINES)

    def add(self, source: Source, at: float, texts: Sequence[str]) -> None:
        """Add lines behind all others. Raises OSError when they have to wait in the file and it cannot be written."""
        size = sum(map(len, texts)) + _LINE_BYTES * len(texts)
        if self._read_to < self._written_to or self._size + size > MEMORY_BYTES:
            self._put_aside(source, at, texts)
            return
        last = self._blocks[-1] if self._blocks else None
        if last is None or last.source != source or len(last.texts) >= BLOCK_LINES:
            last = _Block(source, at)
            self._blocks.append(last)
        last.texts += texts
        self._size += size

    def take(self) -> list[LogBlock]:
        """The next lines, as many as memory holds at most. Raises OSError when they cannot be read back."""
        if not self._blocks:
            self._fetch()
        taken = [block.value(self._run_id) for block in self._blocks]
        self._blocks.clear()
        self._size = 0
        return taken

    def clear(self) -> None:
        """Forget them all."""
        self._blocks.clear()
        self._size = self._read_to = self._written_to = 0
        if self._file is not None:
            self._file.close()
            self._file = None

    def _put_aside(self, source: Source, at: float, texts: Sequence[str]) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - open as long as lines are in it
        # Texts are lines, so what ends a line can part them. A lone surrogate is no valid text, but passes unharmed.
        body = "\n".join(texts).encode("utf-8", "surrogatepass")
        head = json.dumps([*source, at, len(texts), len(body)]).encode("ascii")
        self._file.seek(self._written_to)
        self._written_to += self._file.write(head + b"\n" + body)

    def _fetch(self) -> None:
        """Read back what comes first in the file, as much as memory holds."""
        if self._file is None or self._read_to == self._written_to:
            return
        self._file.seek(self._read_to)
        while self._read_to < self._written_to and self._size < MEMORY_BYTES:
            head = self._file.readline()
            stage, attempt, stream, at, lines, size = json.loads(head)
            body = self._file.read(size)
            self._read_to += len(head) + size
            self._blocks.append(_Block((stage, attempt, stream), at, body.decode("utf-8", "surrogatepass").split("\n")))
            self._size += size + _LINE_BYTES * lines
        if self._read_to == self._written_to:
            self._file.truncate(0)
            self._read_to = self._written_to = 0


class _Block:
    """Lines of one stream on their way to the store."""

    __slots__ = ("at", "source", "texts")

    def __init__(self, source: Source, at: float, texts: list[str] | None = None) -> None:
        self.source, self.at = source, at
        self.texts: list[str] = texts or []

    def value(self, run_id: str) -> LogBlock:
        return LogBlock(run_id, self.at, *self.source, tuple(self.texts))
