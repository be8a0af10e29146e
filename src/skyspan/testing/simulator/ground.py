"""What a simulated run stands on: its names, its engine as two functions, and a store that answers at once."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeAlias, TypeVar

from skyspan.engine import RunState, Step
from skyspan.model.address import DeploymentAddress
from skyspan.model.event import Event, RecordedEvent
from skyspan.testing.memory_store import MemoryStore

LEASE_S = 30.0
START = 1_000_000.0
"""The wall clock when a simulation begins."""
ADDRESS = DeploymentAddress("default", "simulated")
RUN_ID = "simulated-run"

Decide: TypeAlias = Callable[[RunState, Event], Step]
Restore: TypeAlias = Callable[[Iterable[Event]], RunState]

T = TypeVar("T")


class EventStore(MemoryStore):
    """A store in memory without projections: nobody looks at them in a simulation, of which they would be a tenth."""

    def _add_event(self, run: Any, at: float, event: Event) -> None:
        run.events.append(RecordedEvent(run.record.id, len(run.events) + 1, at, event))


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits, as those of the store in memory."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    work.close()
    msg = "the store in memory has to answer at once"
    raise AssertionError(msg)
