"""How a run's events become the rows that people look at."""

from __future__ import annotations

import pytest

from skyspan.contracts.projection import project_deployment, project_run, project_stage, stages_of
from skyspan.contracts.store import DeploymentRecord, RunRecord, StageRunRecord
from skyspan.model.address import DeploymentAddress
from skyspan.model.error import UnreachableError
from skyspan.model.event import (
    AttemptFailed,
    CancelRequested,
    Event,
    RetryDue,
    RetryScheduled,
    RunEnded,
    RunStarted,
    StageEnded,
    StageOutline,
    StagePlanned,
    StageStarted,
)
from skyspan.model.lifecycle import DeploymentStatus, RunStatus, StageStatus, Verb

SITE = DeploymentAddress("default", "site")
DOWN = UnreachableError("no answer").record()


def row_after(*events: Event) -> StageRunRecord:
    started = RunStarted(Verb.UP, (StageOutline("b", "t"), StageOutline("a", "t")))
    row = stages_of(started, "run-1")[1]
    for at, event in enumerate(events, start=10):
        row = project_stage(row, float(at), event)
    return row


def test_every_stage_of_a_run_is_pending_at_first_in_the_order_given() -> None:
    rows = stages_of(RunStarted(Verb.UP, (StageOutline("b", "t"), StageOutline("a", "u"))), "run-1")
    assert [(row.name, row.uses, row.order, row.status.value) for row in rows] == [
        ("b", "t", 0, "pending"),
        ("a", "u", 1, "pending"),
    ]


def test_a_stage_that_ended_shows_when_how_and_with_what() -> None:
    planned = StagePlanned("a", 1, {"change": "create"})
    row = row_after(StageStarted("a", 1), planned, StageEnded("a", 1, StageStatus.SUCCEEDED, outputs=("ip",)))
    assert (row.status, row.change, row.started_at, row.finished_at) == (StageStatus.SUCCEEDED, "create", 10.0, 12.0)
    assert row.outputs == ("ip",)


def test_a_stage_that_waits_to_be_tried_again_is_pending_and_says_why() -> None:
    row = row_after(StageStarted("a", 1), AttemptFailed("a", 1, DOWN), RetryScheduled("a", 2, 4.0))
    assert row.status is StageStatus.PENDING
    assert row.reason == "attempt 2 in 4 s, after: no answer"


def test_a_new_attempt_starts_clean_and_keeps_the_first_start() -> None:
    retried = (AttemptFailed("a", 1, DOWN), RetryScheduled("a", 2, 4.0), RetryDue("a", 2), StageStarted("a", 2))
    row = row_after(StageStarted("a", 1), *retried)
    assert (row.status, row.attempt, row.started_at, row.reason) == (StageStatus.RUNNING, 2, 10.0, "")
    assert row.error is None


def test_a_run_shows_its_verb_and_its_end() -> None:
    run = RunRecord("run-1", SITE, Verb.UP)
    run = project_run(run, 5.0, RunStarted(Verb.UP, (), requested_by="ann"))
    assert (run.status, run.started_at, run.requested_by) == (RunStatus.RUNNING, 5.0, "ann")
    run = project_run(run, 9.0, RunEnded(RunStatus.FAILED, "cloud failed"))
    assert (run.status, run.finished_at, run.reason) == (RunStatus.FAILED, 9.0, "cloud failed")
    assert project_run(run, 10.0, CancelRequested()) is run


@pytest.mark.parametrize(
    ("verb", "result", "status", "health"),
    [
        (Verb.UP, RunStatus.SUCCEEDED, DeploymentStatus.DEPLOYED, "healthy"),
        (Verb.UP, RunStatus.DEGRADED, DeploymentStatus.DEGRADED, "degraded"),
        (Verb.UP, RunStatus.CANCELLED, DeploymentStatus.FAILED, "unknown"),
        (Verb.STOP, RunStatus.SUCCEEDED, DeploymentStatus.STOPPED, "unknown"),
        (Verb.DESTROY, RunStatus.SUCCEEDED, DeploymentStatus.DESTROYED, "unknown"),
        (Verb.PLAN, RunStatus.FAILED, DeploymentStatus.DEPLOYED, "healthy"),
        (Verb.CHECK, RunStatus.FAILED, DeploymentStatus.DEPLOYED, "down"),
        (Verb.CHECK, RunStatus.CANCELLED, DeploymentStatus.DEPLOYED, "healthy"),
    ],
)
def test_a_deployment_follows_its_runs(verb: Verb, result: RunStatus, status: DeploymentStatus, health: str) -> None:
    run = RunRecord("run-1", SITE, verb)
    before = DeploymentRecord(SITE, DeploymentStatus.DEPLOYED, health="healthy")
    busy = project_deployment(before, run, 1.0, RunStarted(verb, ()))
    assert busy.last_run == "run-1"
    assert (busy.status is before.status) is (not verb.writes)
    after = project_deployment(busy, run, 2.0, RunEnded(result))
    assert (after.status, after.health) == (status, health)
