"""What the engine wants done: effects as values, and the step that carries them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from skyspan.engine.state import RunState
from skyspan.model.event import Event
from skyspan.model.lifecycle import RunStatus


@dataclass(frozen=True, slots=True)
class BeginAttempt:
    """Perform the stage; report its end as StageEnded or AttemptFailed with the same attempt number."""

    stage: str
    attempt: int
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class StopAttempt:
    """Stop the running attempt in order; asked again, stop it harder. Its end is reported as ever."""

    stage: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Wake:
    """Report RetryDue for this stage and attempt after `delay_s` seconds."""

    stage: str
    attempt: int
    delay_s: float


@dataclass(frozen=True, slots=True)
class Finish:
    """The run is over: nothing is running, nothing will start."""

    status: RunStatus
    reason: str = ""


Effect: TypeAlias = BeginAttempt | StopAttempt | Wake | Finish


@dataclass(frozen=True, slots=True)
class Step:
    """One decision: the next state, what to record in one transaction, and what to perform.

    `events` are the incoming one and then what follows from it; none when the incoming one was out of date."""

    state: RunState
    events: tuple[Event, ...] = ()
    effects: tuple[Effect, ...] = ()
