"""The published documents, from records."""

from __future__ import annotations

import json

import pytest

from skyspan.app import documents
from skyspan.contracts.store import DeploymentRecord, LogLine, RunRecord, StageRecord, StageRunRecord
from skyspan.model.address import DeploymentAddress
from skyspan.model.event import RecordedEvent, StageEnded
from skyspan.model.lifecycle import DeploymentStatus, RunStatus, StageStatus, Verb
from skyspan.model.secret import Secret
from skyspan.model.value import OutputValue

SITE = DeploymentAddress("default", "site")
RUN = RunRecord("abcdefgh23", SITE, Verb.UP, RunStatus.SUCCEEDED, 1_700_000_000.0, 1_700_000_001.5, requested_by="ann")


def stage(name: str, /, **outputs: OutputValue) -> StageRecord:
    return StageRecord(SITE.stage(name), "command", {}, outputs=outputs)


def test_times_are_rfc_3339_in_utc_and_not_yet_is_null() -> None:
    assert documents.timestamp(1_700_000_000.1234) == "2023-11-14T22:13:20.123Z"
    assert documents.timestamp(0.0) is None


def test_the_status_document_has_exactly_the_published_keys() -> None:
    rows = [StageRunRecord(RUN.id, "a", "command", StageStatus.SUCCEEDED, "create", 1, 10.0, 12.25, outputs=("x",))]
    record = DeploymentRecord(SITE, DeploymentStatus.DEPLOYED, health="healthy")
    document = documents.status_document(record, RUN, rows)
    assert set(document) == {"deployment", "workspace", "status", "run", "stages", "health"}
    assert document["run"]["duration_s"] == 1.5
    assert document["stages"] == [
        {
            "name": "a",
            "uses": "command",
            "status": "succeeded",
            "change": "create",
            "attempt": 1,
            "started_at": "1970-01-01T00:00:10.000Z",
            "finished_at": "1970-01-01T00:00:12.250Z",
            "duration_s": 2.25,
            "reason": "",
            "outputs": ["x"],
        }
    ]
    assert documents.status_document(record, None, ())["run"] is None


def test_a_failed_stage_carries_its_error() -> None:
    row = StageRunRecord(RUN.id, "a", "command", StageStatus.FAILED, error={"summary": "broke"})
    assert documents.stage_run_document(row)["error"] == {"summary": "broke"}


@pytest.mark.parametrize("reveal", [False, True])
def test_sensitive_outputs_are_masked_unless_revealed(reveal: bool) -> None:
    records = [
        stage("a", name=OutputValue("open"), pin=OutputValue("1234", sensitive=True)),
        stage("b", deep=OutputValue({"list": [Secret("inside"), 1]})),
    ]
    document = documents.outputs_document(records, reveal)
    pin, inside = ("1234", "inside") if reveal else ("***", "***")
    assert document["stages"] == {"a": {"name": "open", "pin": pin}, "b": {"deep": {"list": [inside, 1]}}}
    assert document["merged"] == {"name": "open", "pin": pin, "deep": {"list": [inside, 1]}}
    assert json.dumps(document)


def test_of_one_name_the_later_stage_wins_the_merged_view() -> None:
    document = documents.outputs_document([stage("a", x=OutputValue(1)), stage("b", x=OutputValue(2))], reveal=False)
    assert document["merged"] == {"x": 2}


def test_events_and_log_lines_are_one_flat_object_each() -> None:
    ended = StageEnded("a", 1, StageStatus.SUCCEEDED, outputs=("x",))
    event = documents.event_document(RecordedEvent(RUN.id, 3, 1.0, ended))
    assert (event["run"], event["seq"], event["kind"], event["stage"]) == (RUN.id, 3, "stage_ended", "a")
    assert event["outputs"] == ["x"]
    line = documents.log_document(LogLine(RUN.id, 7, 1.0, "a", 2, "out", "said"))
    assert set(line) == {"run", "seq", "at", "stage", "attempt", "stream", "text"}
