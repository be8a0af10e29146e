"""Everything that can happen in a run, as one closed union, and its stored form.

An event says what happened, never what to do. The list of a run's events is the truth about it; everything else
(rows, log, terminal) is derived. A kind once published stays; fields are only ever added, with a default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeAlias

from skyspan.model.lifecycle import RunStatus, StageStatus, Verb


@dataclass(frozen=True, slots=True)
class StageOutline:
    """What the engine needs to know of a stage to order it: names and policies, no settings."""

    name: str
    uses: str
    needs: tuple[str, ...] = ()
    best_effort: bool = False
    attempts: int = 1
    backoff_s: float = 2.0
    retry_any: bool = False
    timeout_s: float | None = None
    removed: bool = False
    """Recorded earlier but no longer in the file: planned for destruction."""


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run began: its verb, what it covers and under which policies."""

    kind: ClassVar[str] = "run_started"
    verb: Verb
    stages: tuple[StageOutline, ...]
    concurrency: int = 16
    fail_fast: bool = False
    requested_by: str = ""
    composition_digest: str = ""
    approved: Mapping[str, Mapping[str, Any]] | None = None
    """The changes of the plan that was agreed to, by stage (`Change.record()`); None without one."""


@dataclass(frozen=True, slots=True)
class StageStarted:
    """An attempt at a stage began; so far it only reads."""

    kind: ClassVar[str] = "stage_started"
    stage: str
    attempt: int


@dataclass(frozen=True, slots=True)
class StagePlanned:
    """The stage's change is known (or known to be deferred). `change` is `Change.record()`."""

    kind: ClassVar[str] = "stage_planned"
    stage: str
    attempt: int
    change: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class EffectIntended:
    """The attempt is about to touch the real world. `effect` is apply, destroy, stop or start."""

    kind: ClassVar[str] = "effect_intended"
    stage: str
    attempt: int
    effect: str


@dataclass(frozen=True, slots=True)
class StageProgressed:
    """A resource within the stage moved: `state` is started, done or failed."""

    kind: ClassVar[str] = "stage_progressed"
    stage: str
    attempt: int
    address: str
    action: str
    state: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class StageEnded:
    """A stage reached an end that needs no retry: `status` tells which, `reason` why in words.

    `outputs` names its outputs. For a failed stage `error` is `StageError.record()`; for a skipped one `cause` names
    the stage that made it so.
    """

    kind: ClassVar[str] = "stage_ended"
    stage: str
    attempt: int
    status: StageStatus
    reason: str = ""
    cause: str = ""
    change: str = ""
    outputs: tuple[str, ...] = ()
    error: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """An attempt failed; whether the stage is tried again is decided next."""

    kind: ClassVar[str] = "attempt_failed"
    stage: str
    attempt: int
    error: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RetryScheduled:
    """The stage is tried again after `delay_s` seconds."""

    kind: ClassVar[str] = "retry_scheduled"
    stage: str
    attempt: int
    delay_s: float


@dataclass(frozen=True, slots=True)
class RetryDue:
    """The pause before an attempt is over."""

    kind: ClassVar[str] = "retry_due"
    stage: str
    attempt: int


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """Somebody asked to stop the run: no new stage starts, running ones are stopped in order."""

    kind: ClassVar[str] = "cancel_requested"
    requested_by: str = ""


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The run is over."""

    kind: ClassVar[str] = "run_ended"
    status: RunStatus
    reason: str = ""


Event: TypeAlias = (
    RunStarted
    | StageStarted
    | StagePlanned
    | EffectIntended
    | StageProgressed
    | StageEnded
    | AttemptFailed
    | RetryScheduled
    | RetryDue
    | CancelRequested
    | RunEnded
)

EVENT_KINDS: tuple[type[Any], ...] = (
    RunStarted,
    StageStarted,
    StagePlanned,
    EffectIntended,
    StageProgressed,
    StageEnded,
    AttemptFailed,
    RetryScheduled,
    RetryDue,
    CancelRequested,
    RunEnded,
)


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """An event as stored: its place in the run's list (from 1, no gaps) and when it was recorded (epoch seconds)."""

    run_id: str
    seq: int
    at: float
    event: Event = field()


def event_record(event: Event) -> dict[str, Any]:
    """The event's fields as JSON data, without its kind; shared with the event, so to be written out, not changed."""
    # Not `asdict`: its deep copies cost more than the transaction that stores the event.
    record = {item.name: getattr(event, item.name) for item in fields(event)}
    if isinstance(event, RunStarted):
        names = tuple(item.name for item in fields(StageOutline))
        record["stages"] = [{name: getattr(stage, name) for name in names} for stage in event.stages]
    return record


def restore_event(kind: str, record: Mapping[str, Any]) -> Event:
    """The event that was stored as `kind` and `record`; unknown fields of a newer version are ignored.

    Raises ValueError for an unknown kind.
    """
    for known in EVENT_KINDS:
        if known.kind == kind:
            names = {item.name for item in fields(known)}
            values = {key: value for key, value in record.items() if key in names}
            return _typed(known, values)
    msg = f"unknown event kind {kind!r}"
    raise ValueError(msg)


def _typed(kind: type[Any], values: dict[str, Any]) -> Event:
    if kind is RunStarted:
        values["verb"] = Verb(values["verb"])
        values["stages"] = tuple(_outline(item) for item in values["stages"])
    elif kind is StageEnded:
        values["status"] = StageStatus(values["status"])
        values["outputs"] = tuple(values.get("outputs", ()))
    elif kind is RunEnded:
        values["status"] = RunStatus(values["status"])
    event: Event = kind(**values)
    return event


def _outline(record: Mapping[str, Any]) -> StageOutline:
    known = {item.name for item in fields(StageOutline)}
    values = {key: value for key, value in record.items() if key in known}
    values["needs"] = tuple(values.get("needs", ()))
    return StageOutline(**values)
