"""What is left of a simulated run, for its judges."""

from __future__ import annotations

from dataclasses import dataclass, field

from skyspan.model.event import RecordedEvent
from skyspan.testing.simulator.scenario import Scenario


@dataclass(slots=True)
class Deed:
    """One change of the real world, as an outside witness sees it: which attempt, from when to when."""

    stage: str
    attempt: int
    began: float
    ended: float | None = None
    cut_off: bool = False
    """It was killed with all that belongs to it, and left nothing."""


@dataclass(slots=True)
class Simulated:
    """What is left of a simulated run, for its judges."""

    scenario: Scenario
    recorded: list[RecordedEvent] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)
    outputs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    deeds: list[Deed] = field(default_factory=list)
    crashes: int = 0
    take_overs: int = 0
    refused_writes: int = 0
    refused_leases: int = 0
    dropped: int = 0
    """Reports that came too late or twice and changed nothing."""
