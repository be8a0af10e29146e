"""Owns what a transport keeps of a command's output: all of it up to a limit, then its last part."""

from __future__ import annotations

from collections import deque

KEPT_BYTES = 8 * 2**20
"""How much of each stream a `Completed` holds."""


class KeptOutput:
    """The output of one stream, at most about `limit` bytes of it in memory."""

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        self._limit = limit
        self._pieces: deque[bytes] = deque()
        self._size = 0

    def add(self, data: bytes) -> None:
        """Keep `data`, forgetting the oldest pieces that are not needed any more."""
        self._pieces.append(data)
        self._size += len(data)
        while self._size - len(self._pieces[0]) >= self._limit:
            self._size -= len(self._pieces.popleft())

    def whole(self) -> bytes:
        """What is kept, at most `limit` bytes."""
        return b"".join(self._pieces)[-self._limit :]
