"""The gate that every effect of one context passes: there the process dies, or a command fails, as a test has it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from enum import StrEnum
from typing import TypeVar

from skyspan.contracts.transport import Completed, OnOutput, Stream

T = TypeVar("T")

Look = Callable[[], object]
"""Describes what a provider changes without passing the gate, so that two looks can be compared."""


class Died(BaseException):
    """The process that drove the provider is gone: nothing it still tries has any effect."""


class Side(StrEnum):
    """Whether the process died just before an effect or just after it."""

    BEFORE = "before"
    AFTER = "after"


class Gate:
    """Every effect of one context passes here: counted, and at a chosen one the process dies or the command fails.

    Effects count from 1: commands that are run, and data that is kept or forgotten. `paused` is set at the chosen one:
    whether the one before it ended alone, with nothing changed (by `look`) from then until the chosen one began.
    """

    def __init__(
        self,
        die_at: tuple[int, Side] | None = None,
        fail_at: tuple[int, bytes] | None = None,
        look: Look = lambda: None,
    ) -> None:
        self.count = 0
        self.begun = asyncio.Event()
        self.failed = False
        self.dead = False
        self.paused = False
        self._die_at = die_at
        self._fail_at = fail_at
        self._look = look
        self._under_way = 0
        self._rest: tuple[int, object] | None = None

    async def command(self, act: Callable[[], Awaitable[Completed]], on_output: OnOutput | None) -> Completed:
        """Let a command pass; at the chosen effect it fails instead, with the chosen last words."""
        if self._fail_at is not None and self.count + 1 == self._fail_at[0]:
            self.count += 1
            self.failed = True
            if on_output is not None:
                on_output(Stream.ERR, self._fail_at[1])
            return Completed(1, stderr=self._fail_at[1])
        return await self.effect(act)

    async def effect(self, act: Callable[[], Awaitable[T]]) -> T:
        """Let an effect pass."""
        if self.dead:
            raise Died
        self.count += 1
        number = self.count
        chosen = self._die_at if self._die_at is not None and self._die_at[0] == number else None
        if chosen is not None:
            self.paused = self._rest == (number - 1, self._look())
            if chosen[1] is Side.BEFORE:
                self._die()
        self.begun.set()
        self._under_way += 1
        self._rest = None
        try:
            result = await act()
        finally:
            self._under_way -= 1
        if chosen is not None:
            self._die()
        if self._under_way == 0 and self._die_at is not None and self._die_at[0] == number + 1:
            self._rest = (number, self._look())
        return result

    def _die(self) -> None:
        self.dead = True
        raise Died


def deaths(most: int, look: Look) -> Iterator[Gate]:
    """A gate for every point at which a process with up to `most` effects may die, and at last one at which it lives.

    Each has to be used before the next is asked for. A death just after one effect is left out where that just before
    the next one is the same: nothing was under way in between, and nothing was changed.
    """
    for number in range(1, most + 1):
        before = Gate(die_at=(number, Side.BEFORE), look=look)
        yield before
        if number > 1 and not before.paused:
            yield Gate(die_at=(number - 1, Side.AFTER))
        if not before.dead:
            return
