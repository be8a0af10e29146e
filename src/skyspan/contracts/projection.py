"""How events become rows: the one pure projection that every store applies in the transaction that adds the events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from skyspan.contracts.store import DeploymentRecord, RunRecord, StageRunRecord
from skyspan.model.event import (
    AttemptFailed,
    Event,
    RetryDue,
    RetryScheduled,
    RunEnded,
    RunStarted,
    StageEnded,
    StagePlanned,
    StageStarted,
)
from skyspan.model.lifecycle import RunStatus, StageStatus, Verb, after_run, while_running

_HEALTH_SEEN: Mapping[RunStatus, str] = MappingProxyType(
    {RunStatus.SUCCEEDED: "healthy", RunStatus.DEGRADED: "degraded", RunStatus.FAILED: "down"}
)


def stages_of(started: RunStarted, run_id: str) -> tuple[StageRunRecord, ...]:
    """The rows of a run's stages as it starts, in the order that `started` gives them."""
    return tuple(
        StageRunRecord(run_id=run_id, name=outline.name, uses=outline.uses, order=place)
        for place, outline in enumerate(started.stages)
    )


def stage_named(event: Event) -> str:
    """The stage that an event is about, or the empty text for events about the run."""
    return getattr(event, "stage", "")


def project_stage(record: StageRunRecord, at: float, event: Event) -> StageRunRecord:
    """The row of the stage that `event` is about, after the event. The same object when nothing changes."""
    match event:
        case StageStarted():
            return replace(
                record,
                status=StageStatus.RUNNING,
                attempt=event.attempt,
                started_at=record.started_at or at,
                reason="",
                error=None,
            )
        case StagePlanned():
            return replace(record, change=str(event.change.get("change", "")))
        case AttemptFailed():
            return replace(record, reason=event.error.get("summary", ""), error=dict(event.error))
        case RetryScheduled():
            reason = f"attempt {event.attempt} in {event.delay_s:g} s, after: {record.reason or 'a failure'}"
            return replace(record, status=StageStatus.PENDING, reason=reason)
        case RetryDue():
            return replace(record, reason=f"attempt {event.attempt} is due")
        case StageEnded():
            return replace(
                record,
                status=event.status,
                attempt=event.attempt,
                change=event.change or record.change,
                finished_at=at,
                reason=event.reason,
                outputs=tuple(event.outputs),
                error=dict(event.error) if event.error is not None else None,
            )
        case _:
            return record


def project_run(record: RunRecord, at: float, event: Event) -> RunRecord:
    """The run's row after `event`. The same object when nothing changes."""
    match event:
        case RunStarted():
            return replace(
                record,
                verb=event.verb,
                status=RunStatus.RUNNING,
                started_at=at,
                finished_at=0.0,
                requested_by=event.requested_by or record.requested_by,
            )
        case RunEnded():
            return replace(record, status=event.status, finished_at=at, reason=event.reason)
        case _:
            return record


def project_deployment(record: DeploymentRecord, run: RunRecord, at: float, event: Event) -> DeploymentRecord:
    """The deployment's row after `event` of its run `run`. The same object when nothing changes.

    A reading verb leaves the status as it was, while it runs too: a plan that dies must not leave a deployment that
    is `planning` for ever, so that word is derived from who holds the lease. A check sets the health it saw.
    """
    match event:
        case RunStarted():
            status = while_running(run.verb, record.status) if run.verb.writes else record.status
            return replace(record, status=status, last_run=run.id, updated_at=at)
        case RunEnded():
            return replace(
                record,
                status=after_run(run.verb, record.status, event.status),
                health=_health(record.health, run.verb, event.status),
                updated_at=at,
            )
        case _:
            return record


def _health(before: str, verb: Verb, result: RunStatus) -> str:
    if verb is Verb.PLAN:
        return before
    if verb is Verb.CHECK:
        return _HEALTH_SEEN.get(result, before)
    if verb in (Verb.UP, Verb.START) and result in (RunStatus.SUCCEEDED, RunStatus.DEGRADED):
        return _HEALTH_SEEN[result]
    return "unknown"
