"""An immutable array whose changed copy costs a few dozen slots, not its length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

_WIDTH = 32


@dataclass(frozen=True, slots=True)
class Board(Generic[T]):
    """Items by number from 0, in leaves of 32: `put` copies one leaf and the list of leaves."""

    leaves: tuple[tuple[T, ...], ...] = ()

    @classmethod
    def of(cls, items: Iterable[T]) -> Board[T]:
        """The board of `items`, in order."""
        flat = tuple(items)
        return cls(tuple(flat[start : start + _WIDTH] for start in range(0, len(flat), _WIDTH)))

    def __getitem__(self, place: int) -> T:
        return self.leaves[place // _WIDTH][place % _WIDTH]

    def __iter__(self) -> Iterator[T]:
        for leaf in self.leaves:
            yield from leaf

    def put(self, place: int, item: T) -> Board[T]:
        """The board with `item` at `place`."""
        row, column = divmod(place, _WIDTH)
        leaf = self.leaves[row]
        changed = (*leaf[:column], item, *leaf[column + 1 :])
        return Board((*self.leaves[:row], changed, *self.leaves[row + 1 :]))
