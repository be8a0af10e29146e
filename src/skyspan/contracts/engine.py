"""How an engine driver meets its neighbours: who performs a stage, who records, who listens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from skyspan.contracts.store import Lease, LeaseStore, RunRecord, RunStore, StageRecord
from skyspan.model.address import StageAddress
from skyspan.model.event import AttemptFailed, Event, RecordedEvent, RunEnded, RunStarted, StageEnded


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended, and what is to be remembered in the same transaction: its stage's record, or that there
    is none any more."""

    event: StageEnded | AttemptFailed
    put: StageRecord | None = None
    removed: StageAddress | None = None


class Journal(Protocol):
    """Where an attempt says what happens. Every write goes under the run's lease; an older epoch is refused."""

    async def record(self, event: Event, put: StageRecord | None = None, removed: StageAddress | None = None) -> None:
        """Write it; durable when the call returns. An effect on the real world begins only after its EffectIntended
        came back from here.

        Raises StoreUnavailableError or FencedError: then nothing was written and no effect may begin. Let both pass."""
        ...

    def note(self, event: Event) -> None:
        """Write it soon, in order with everything else, without waiting: progress, plans."""
        ...


class Ledger(RunStore, LeaseStore, Protocol):
    """The part of the store that a driver needs."""


class Performer(Protocol):
    """Performs attempts at stages; knows what they mean, decides nothing about what follows."""

    async def perform(self, stage: str, attempt: int, journal: Journal) -> Outcome:
        """Do the stage's part of the run and say how it ended.

        A failure is an outcome, not an exception; only StoreError and cancellation pass. On cancellation stop what runs
        in order, then raise; a second cancellation while stopping means: at once."""
        ...


EventSink: TypeAlias = Callable[[RecordedEvent], None]
"""Called with every event of a run in order, once it is durable. Must not block; one that raises is dropped."""

Redact: TypeAlias = Callable[[str], str]
"""A text with every known secret replaced by its mask."""


class Driver(Protocol):
    """Performs what the engine decides, until the run has ended."""

    async def run(self, run: RunRecord, lease: Lease, started: RunStarted, performer: Performer) -> RunEnded:
        """Carry out a new run under `lease`, which the caller took and gives up afterwards.

        The end that is returned is recorded, except LOST: somebody else took the lease over, so nothing more may be.
        Raises StoreUnavailableError when the store could not be written: everything was stopped in order by then."""
        ...

    def cancel(self, requested_by: str) -> None:
        """Stop the run in order; the second time, at once."""
        ...
