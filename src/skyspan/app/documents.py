"""The published JSON documents (pure): one function per document, keys as pinned in the command line's reference.

A key once published stays. Times are RFC 3339 UTC; durations are seconds.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from skyspan.contracts.store import DeploymentRecord, LogLine, RunRecord, StageRecord, StageRunRecord
from skyspan.model.event import RecordedEvent, event_record
from skyspan.model.secret import MASK
from skyspan.model.value import OutputValue, Value, masked, revealed

Document = dict[str, Any]


def timestamp(seconds: float) -> str | None:
    """RFC 3339 in UTC with milliseconds; None for 0, which means `not yet`."""
    if not seconds:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def run_document(run: RunRecord) -> Document:
    """A run in a few words."""
    return {
        "id": run.id,
        "verb": run.verb.value,
        "status": run.status.value,
        "started_at": timestamp(run.started_at),
        "finished_at": timestamp(run.finished_at),
        "duration_s": _duration(run.started_at, run.finished_at),
        "requested_by": run.requested_by,
        "reason": run.reason,
    }


def stage_run_document(stage: StageRunRecord) -> Document:
    """A stage within a run."""
    document: Document = {
        "name": stage.name,
        "uses": stage.uses,
        "status": stage.status.value,
        "change": stage.change or None,
        "attempt": stage.attempt,
        "started_at": timestamp(stage.started_at),
        "finished_at": timestamp(stage.finished_at),
        "duration_s": _duration(stage.started_at, stage.finished_at),
        "reason": stage.reason,
        "outputs": list(stage.outputs),
    }
    if stage.error:
        document["error"] = dict(stage.error)
    return document


def status_document(deployment: DeploymentRecord, run: RunRecord | None, stages: Sequence[StageRunRecord]) -> Document:
    """`skyspan --json status NAME`."""
    return {
        "deployment": deployment.address.name,
        "workspace": deployment.address.workspace,
        "status": deployment.status.value,
        "run": run_document(run) if run else None,
        "stages": [stage_run_document(stage) for stage in stages],
        "health": deployment.health,
    }


def show_document(run: RunRecord, stages: Sequence[StageRunRecord]) -> Document:
    """`skyspan --json show RUN`."""
    return {
        "deployment": run.deployment.name,
        "workspace": run.deployment.workspace,
        "run": run_document(run),
        "stages": [stage_run_document(stage) for stage in stages],
    }


def list_document(deployments: Sequence[DeploymentRecord], interrupted: Collection[str]) -> Document:
    """`skyspan --json list`; `interrupted` are those whose run has lost its engine."""
    return {
        "deployments": [
            {
                "deployment": item.address.name,
                "workspace": item.address.workspace,
                "status": item.status.value,
                "health": item.health,
                "folder": item.folder,
                "created_at": timestamp(item.created_at),
                "updated_at": timestamp(item.updated_at),
                "last_run": item.last_run or None,
                "interrupted": item.address.name in interrupted,
            }
            for item in deployments
        ]
    }


def runs_document(name: str, runs: Sequence[RunRecord]) -> Document:
    """`skyspan --json runs NAME`."""
    return {"deployment": name, "runs": [run_document(run) for run in runs]}


def outputs_document(records: Sequence[StageRecord], reveal: bool) -> Document:
    """`skyspan --json outputs`: per stage, and merged (a later stage of the order wins a name)."""
    stages = {
        record.address.name: {name: output_value(item, reveal) for name, item in record.outputs.items()}
        for record in records
    }
    merged: Document = {}
    for values in stages.values():
        merged |= values
    return {"stages": stages, "merged": merged}


def output_value(output: OutputValue, reveal: bool) -> Value:
    """An output's value as published: sensitive ones masked unless revealed."""
    if reveal:
        return revealed(output.value)
    return MASK if output.sensitive else masked(output.value)


def links_document(records: Sequence[StageRecord], described: Mapping[str, Mapping[str, Any]]) -> Document:
    """`skyspan --json links`: the links between hosts, and the places to look at each stage."""
    return {
        "links": [
            {
                "stage": record.address.name,
                "uses": record.uses,
                "stopped": record.stopped,
                **described[record.address.name],
            }
            for record in records
            if record.address.name in described
        ],
        "consoles": [
            {"stage": record.address.name, "title": link.title, "url": link.url}
            for record in records
            for link in record.links
        ],
    }


def event_document(recorded: RecordedEvent) -> Document:
    """One line of `skyspan --json events RUN`."""
    return {
        "run": recorded.run_id,
        "seq": recorded.seq,
        "at": timestamp(recorded.at),
        "kind": recorded.event.kind,
        **json.loads(json.dumps(event_record(recorded.event))),
    }


def log_document(line: LogLine) -> Document:
    """One line of `skyspan --json logs`."""
    return {
        "run": line.run_id,
        "seq": line.seq,
        "at": timestamp(line.at),
        "stage": line.stage,
        "attempt": line.attempt,
        "stream": line.stream,
        "text": line.text,
    }


def _duration(started: float, finished: float) -> float | None:
    return round(finished - started, 3) if started and finished else None
