"""Runs, their events, and the rows that follow from events."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from skyspan.contracts.projection import project_deployment, project_run, project_stage, stage_named, stages_of
from skyspan.contracts.store import Batch, Lease, RunRecord, StageRunRecord
from skyspan.model.address import DeploymentAddress
from skyspan.model.error import FencedError, NotFoundError, StoreError
from skyspan.model.event import Event, RecordedEvent, RunStarted, event_record, restore_event
from skyspan.model.lifecycle import RunStatus, StageStatus, Verb
from skyspan.store.codec import plain, reading, to_json
from skyspan.store.database import Transaction
from skyspan.store.deployments import deployment_head, put_stages, remove_stages, save_head
from skyspan.store.leases import fenced, guard
from skyspan.store.tables import events, leases, runs, stage_runs

PREFIX = 4
"""The fewest characters that may stand for a whole run id."""

_RUN = sa.select(
    runs.c.id,
    runs.c.workspace,
    runs.c.deployment,
    runs.c.verb,
    runs.c.status,
    runs.c.started_at,
    runs.c.finished_at,
    runs.c.epoch,
    runs.c.requested_by,
    runs.c.reason,
)
_BY_ID = _RUN.where(runs.c.id == sa.bindparam("run_id"))
# The lock on the lease's row keeps everybody from taking over before the transaction ends.
_FENCED = (
    _BY_ID.add_columns(runs.c.event_seq, leases.c.epoch, leases.c.held)
    .where(leases.c.workspace == runs.c.workspace, leases.c.deployment == runs.c.deployment)
    .with_for_update(read=True, of=leases)
)
_BY_PREFIX = (
    _RUN.where(runs.c.id >= sa.bindparam("run_id"), runs.c.id < sa.bindparam("beyond")).order_by(runs.c.id).limit(3)
)
_OF_DEPLOYMENT = (
    _RUN.where(runs.c.workspace == sa.bindparam("workspace"), runs.c.deployment == sa.bindparam("deployment"))
    .order_by(runs.c.started_at.desc(), runs.c.id.desc())
    .limit(sa.bindparam("most"))
)
_EVENTS = (
    sa.select(events.c.seq, events.c.at, events.c.kind, events.c.payload)
    .where(events.c.run_id == sa.bindparam("run_id"), events.c.seq > sa.bindparam("after"))
    .order_by(events.c.seq)
    .limit(sa.bindparam("most"))
)
_STAGE_RUNS = sa.select(
    stage_runs.c.run_id,
    stage_runs.c.name,
    stage_runs.c.uses,
    stage_runs.c.status,
    stage_runs.c.change,
    stage_runs.c.attempt,
    stage_runs.c.started_at,
    stage_runs.c.finished_at,
    stage_runs.c.reason,
    stage_runs.c.outputs,
    stage_runs.c.error,
    stage_runs.c.position,
).where(stage_runs.c.run_id == sa.bindparam("run_id"))
_ALL_STAGE_RUNS = _STAGE_RUNS.order_by(stage_runs.c.position, stage_runs.c.name)
_ONE_STAGE_RUN = _STAGE_RUNS.where(stage_runs.c.name == sa.bindparam("name"))
_ADD_EVENTS = sa.insert(events)
_ADD_RUN = sa.insert(runs)
_ADVANCE = sa.update(runs).where(runs.c.id == sa.bindparam("run")).values(event_seq=sa.bindparam("seq"))
_CHANGE = _ADVANCE.values(
    verb=sa.bindparam("new_verb"),
    status=sa.bindparam("new_status"),
    started_at=sa.bindparam("started"),
    finished_at=sa.bindparam("finished"),
    requested_by=sa.bindparam("asked_by"),
    reason=sa.bindparam("why"),
)


def begin_run(tx: Transaction, run: RunRecord, lease: Lease) -> None:
    """Create the run; raises FencedError for a stale lease."""
    guard(tx, run.deployment, lease)
    if deployment_head(tx, run.deployment) is None:
        raise NotFoundError(f"there is no deployment {run.deployment}", hint="Save it before its first run.")
    if tx.fetch(_BY_ID, {"run_id": run.id}):
        raise StoreError(f"there is a run {run.id} already")
    row = {
        "id": run.id,
        "workspace": run.deployment.workspace,
        "deployment": run.deployment.name,
        "verb": run.verb.value,
        "status": run.status.value,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "epoch": lease.epoch,
        "requested_by": plain(run.requested_by),
        "reason": plain(run.reason),
        "event_seq": 0,
        "log_seq": 0,
    }
    tx.change(_ADD_RUN, row)


def append(tx: Transaction, run_id: str, lease: Lease, batch: Batch) -> None:
    """Write the batch and what follows from it; raises FencedError for a stale lease."""
    rows = tx.fetch(_FENCED, {"run_id": run_id})
    if not rows:
        raise NotFoundError(f"there is no run {run_id}")
    *columns, event_seq, epoch, held = rows[0]
    run = _run(columns)
    if not held or epoch != lease.epoch or lease.deployment != run.deployment:
        raise fenced(tx, run.deployment, lease.epoch)
    touched = {record.address.deployment for record in batch.put} | {gone.deployment for gone in batch.removed}
    if touched - {run.deployment}:
        raise FencedError(f"the lease of {run.deployment} does not cover other deployments; nothing was written")
    if batch.events:
        _add_events(tx, run, event_seq, batch.events)
    put_stages(tx, batch.put)
    remove_stages(tx, batch.removed)


def find_run(tx: Transaction, run_id: str) -> RunRecord | None:
    """The run by its id or by a prefix that no other run shares."""
    rows = tx.fetch(_BY_ID, {"run_id": run_id})
    if rows:
        return _run(rows[0])
    if len(run_id) < PREFIX or ord(run_id[-1]) >= 0x7F:
        return None
    beyond = run_id[:-1] + chr(ord(run_id[-1]) + 1)
    rows = tx.fetch(_BY_PREFIX, {"run_id": run_id, "beyond": beyond})
    if len(rows) > 1:
        raise NotFoundError(
            f"more than one run begins with {run_id}",
            detail=", ".join(row[0] for row in rows[:2]) + (", …" if len(rows) > 2 else ""),
            hint="Give more characters of the run's id.",
        )
    return _run(rows[0]) if rows else None


def list_runs(tx: Transaction, address: DeploymentAddress, limit: int) -> Sequence[RunRecord]:
    """A deployment's runs, newest first."""
    key = {"workspace": address.workspace, "deployment": address.name, "most": limit}
    return [_run(row) for row in tx.fetch(_OF_DEPLOYMENT, key)]


def list_stage_runs(tx: Transaction, run_id: str) -> Sequence[StageRunRecord]:
    """The stages of a run, in order."""
    return [_stage_run(row) for row in tx.fetch(_ALL_STAGE_RUNS, {"run_id": run_id})]


def list_events(tx: Transaction, run_id: str, after: int, limit: int) -> Sequence[RecordedEvent]:
    """Events with `seq` above `after`."""
    rows = tx.fetch(_EVENTS, {"run_id": run_id, "after": after, "most": limit})
    with reading(f"an event of the run {run_id}"):
        return [
            RecordedEvent(run_id, seq, at, restore_event(kind, json.loads(payload))) for seq, at, kind, payload in rows
        ]


def _add_events(tx: Transaction, run: RunRecord, seq: int, added: Sequence[tuple[float, Event]]) -> None:
    rows = [
        {"run_id": run.id, "seq": place, "at": at, "kind": event.kind, "payload": to_json(event_record(event))}
        for place, (at, event) in enumerate(added, start=seq + 1)
    ]
    tx.change(_ADD_EVENTS, *rows)
    after = run
    for at, event in added:
        after = project_run(after, at, event)
    _project_stages(tx, run.id, added)
    if not all(stage_named(event) for _, event in added):
        _project_deployment(tx, after, added)
    if after is run:
        tx.change(_ADVANCE, {"run": run.id, "seq": seq + len(rows)})
        return
    values = {
        "run": run.id,
        "seq": seq + len(rows),
        "new_verb": after.verb.value,
        "new_status": after.status.value,
        "started": after.started_at,
        "finished": after.finished_at,
        "asked_by": plain(after.requested_by),
        "why": plain(after.reason),
    }
    tx.change(_CHANGE, values)


def _project_stages(tx: Transaction, run_id: str, added: Sequence[tuple[float, Event]]) -> None:
    before: dict[str, StageRunRecord | None] = {}
    after: dict[str, StageRunRecord] = {}
    for at, event in added:
        if isinstance(event, RunStarted):
            after.update((record.name, record) for record in stages_of(event, run_id))
            continue
        name = stage_named(event)
        if not name:
            continue
        if name not in after and name not in before:
            rows = tx.fetch(_ONE_STAGE_RUN, {"run_id": run_id, "name": name})
            before[name] = _stage_run(rows[0]) if rows else None
        record = after.get(name) or before.get(name)
        if record is not None:
            after[name] = project_stage(record, at, event)
    changed = [record for name, record in after.items() if record is not before.get(name)]
    tx.put(stage_runs, [_stage_run_columns(record) for record in changed])


def _project_deployment(tx: Transaction, run: RunRecord, added: Sequence[tuple[float, Event]]) -> None:
    before = deployment_head(tx, run.deployment)
    if before is None:
        return
    after = before
    for at, event in added:
        after = project_deployment(after, run, at, event)
    if after is not before:
        save_head(tx, after)


def _run(row: Sequence[Any]) -> RunRecord:
    with reading(f"the run {row[0]}"):
        run_id, workspace, deployment, verb, status, started, finished, epoch, requested_by, reason = row
        address = DeploymentAddress(workspace, deployment)
        return RunRecord(run_id, address, Verb(verb), RunStatus(status), started, finished, epoch, requested_by, reason)


def _stage_run(row: Sequence[Any]) -> StageRunRecord:
    with reading(f"the stage {row[1]} of the run {row[0]}"):
        run_id, name, uses, status, change, attempt, started, finished, reason, outputs, error, position = row
        return StageRunRecord(
            run_id=run_id,
            name=name,
            uses=uses,
            status=StageStatus(status),
            change=change,
            attempt=attempt,
            started_at=started,
            finished_at=finished,
            reason=reason,
            outputs=tuple(json.loads(outputs)),
            error=None if error is None else json.loads(error),
            order=position,
        )


def _stage_run_columns(record: StageRunRecord) -> dict[str, Any]:
    return {
        "run_id": record.run_id,
        "name": record.name,
        "uses": record.uses,
        "status": record.status.value,
        "change": record.change,
        "attempt": record.attempt,
        "started_at": record.started_at,
        "finished_at": record.finished_at,
        "reason": plain(record.reason),
        "outputs": to_json(record.outputs),
        "error": None if record.error is None else to_json(dict(record.error)),
        "position": record.order,
    }
