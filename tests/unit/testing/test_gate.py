"""At which points a process is tried to die: at each once, and not twice at what is the same."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from skyspan.testing.gate import Died, Gate, deaths


class Work:
    """What was done, and what changed without passing the gate, until the process died."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.besides = 0

    async def step(self, name: str) -> None:
        await asyncio.sleep(0)
        self.done.append(name)


async def died(work: Callable[[Gate, Work], Awaitable[None]]) -> list[str]:
    """What had been done at each death, and at last all."""
    found = []
    state = Work()
    for gate in deaths(9, lambda: state.besides):
        state.done.clear()
        with contextlib.suppress(Died):
            await work(gate, state)
        found.append("".join(state.done))
    return found


async def test_of_effects_one_after_the_other_none_is_tried_twice_and_the_last_death_is_after_all() -> None:
    async def work(gate: Gate, state: Work) -> None:
        for name in "abc":
            await gate.effect(lambda name=name: state.step(name))  # type: ignore[misc]

    assert await died(work) == ["", "a", "ab", "abc", "abc"]


async def test_what_changes_between_two_effects_makes_a_death_of_its_own() -> None:
    async def work(gate: Gate, state: Work) -> None:
        await gate.effect(lambda: state.step("a"))
        state.besides += 1
        state.done.append("+")
        await gate.effect(lambda: state.step("b"))

    assert await died(work) == ["", "a+", "a", "a+b", "a+b"]


async def test_of_effects_at_the_same_time_each_death_is_tried() -> None:
    async def work(gate: Gate, state: Work) -> None:
        await asyncio.gather(gate.effect(lambda: state.step("a")), gate.effect(lambda: state.step("b")))

    assert len(await died(work)) == 5


async def test_a_process_without_effects_lives() -> None:
    async def work(gate: Gate, state: Work) -> None:
        state.done.append("nothing")

    assert await died(work) == ["nothing"]
