"""Listeners and journals that remember what they were told."""

from __future__ import annotations

from dataclasses import dataclass, field

from skyspan.contracts.store import StageRecord
from skyspan.model.address import StageAddress
from skyspan.model.event import Event, RecordedEvent


@dataclass(slots=True)
class RecordingSink:
    """An event sink that keeps everything."""

    recorded: list[RecordedEvent] = field(default_factory=list)

    def __call__(self, event: RecordedEvent) -> None:
        self.recorded.append(event)

    @property
    def events(self) -> list[Event]:
        """The events alone, in order."""
        return [item.event for item in self.recorded]


@dataclass(slots=True)
class RecordingJournal:
    """Implements `contracts.engine.Journal` in memory, for tests of a performer without a driver.

    `entries` is everything in order; `records` the stage records as they stand.
    """

    entries: list[Event] = field(default_factory=list)
    records: dict[StageAddress, StageRecord] = field(default_factory=dict)

    async def record(self, event: Event, put: StageRecord | None = None, removed: StageAddress | None = None) -> None:
        self.entries.append(event)
        if put is not None:
            self.records[put.address] = put
        if removed is not None:
            self.records.pop(removed, None)

    def note(self, event: Event) -> None:
        self.entries.append(event)
