"""The names of the auditor's rules, and what it says when one is broken."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Rule(StrEnum):
    """What must hold of every run, whoever carried it out and however often it died in between."""

    NUMBERING = "events are numbered from 1 without a gap, all of one run"
    BEGINNING = "a run begins once, with its first event"
    ENDING = "a run ends once, with its last event"
    KNOWN = "every event is about a stage of the run"
    ONE_END = "every stage ends exactly once, and nothing happens to it afterwards"
    ORDER = "a stage starts after everything it needs has ended so that it may go on"
    ATTEMPTS = "attempts count 1, 2, 3 up to the limit, one at a time"
    RUNNING = "only a running attempt has plans, effects, progress, failures and results"
    CONCURRENCY = "no more stages run at once than allowed"
    CLOSED = "nothing starts after a cancellation, or after a failure when failing fast"
    IDLE = "a stage that may start is started before anything else happens"
    EFFECTS = "an attempt intends one effect at most, and ends in keeping with it"
    RETRIES = "a failure is tried again exactly when its class and the stage's policy say so, after the right pause"
    SKIPS = "a stage is skipped only for a cause that ended badly, or by its own condition"
    CANCELS = "a stage is cancelled only in a cancelled run, and what has not begun is cancelled at once"
    RESULT = "the run's end follows from its stages' ends"
    EPOCHS = "the lease's epoch never goes back"
    OUTPUTS = "what a stage gave out stays on record"


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken rule: at which event, and what was seen there."""

    rule: Rule
    seq: int
    seen: str

    def __str__(self) -> str:
        return f"event {self.seq}: {self.seen} (but {self.rule.value})"
