from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from skyspan.rehearsal.cycle import LAST, STEPS, judge
from skyspan.rehearsal.report import EventKind, RehearsalEvent, RehearsalReport, StepReport, Verdict

BY_NAME = {step.name: step for step in STEPS}


def status(deployment: str, *stages: str) -> Mapping[str, Any]:
    return {
        "status": deployment,
        "stages": [{"name": f"s{i}", "status": one, "reason": ""} for i, one in enumerate(stages)],
    }


def test_a_step_passes_when_the_deployment_is_what_it_should_be() -> None:
    assert judge(BY_NAME["up"], 0, status("deployed", "succeeded")) == ""


def test_a_command_that_fails_fails_its_step() -> None:
    assert "ended with 1" in judge(BY_NAME["up"], 1, status("failed"))


def test_a_degraded_deployment_is_no_deployed_one() -> None:
    assert "is degraded, not deployed" in judge(BY_NAME["up"], 0, status("degraded", "failed"))


def test_the_second_up_must_find_every_stage_unchanged() -> None:
    assert judge(BY_NAME["again"], 0, status("deployed", "unchanged", "unchanged")) == ""
    assert "not settled: s1 (succeeded)" in judge(BY_NAME["again"], 0, status("deployed", "unchanged", "succeeded"))


def test_a_stage_that_its_own_condition_leaves_out_is_settled() -> None:
    assert judge(BY_NAME["again"], 0, status("deployed", "unchanged", "skipped")) == ""


def test_a_check_that_finds_it_unwell_fails() -> None:
    assert "health is down" in judge(BY_NAME["check"], 0, {"status": "deployed", "health": "down"})


def test_a_status_that_cannot_be_read_fails_the_step() -> None:
    assert "unknown" in judge(BY_NAME["up"], 0, {})


def test_destruction_comes_last() -> None:
    assert STEPS[-1].name == LAST


def test_a_report_survives_json() -> None:
    report = RehearsalReport(
        "hybrid",
        (StepReport("up", "bring it up", Verdict.PASSED, 1.5, "", 0, {"cloud": "succeeded"}),),
        ("gw: left behind: file /etc/x",),
        0.5,
        2.0,
        ({"stage": "link", "ends": []},),
        {"cloud": {"ip": "192.0.2.1"}},
    )
    assert RehearsalReport.restore(json.loads(json.dumps(report.document()))) == report
    assert not report.passed


def test_an_event_survives_json() -> None:
    event = RehearsalEvent(EventKind.LINE, 1.25, "up", "cloud: apply")
    assert RehearsalEvent.restore(json.loads(json.dumps(event.document()))) == event
