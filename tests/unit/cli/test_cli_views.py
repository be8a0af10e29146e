"""Words and columns for people, and that every verb a message names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import skyspan
from skyspan.cli.main import VERBS
from skyspan.cli.options import Globals, parse_inputs, remember
from skyspan.cli.running import exit_status
from skyspan.cli.views.plan import summary
from skyspan.cli.views.problem import problem_document
from skyspan.cli.views.style import ACTION_LOOKS, STATUS_LOOKS, columns, count, duration
from skyspan.model.change import Action
from skyspan.model.diagnostic import Diagnostic, Position
from skyspan.model.error import CompositionError, UsageError
from skyspan.model.lifecycle import DeploymentStatus, RunStatus, StageStatus

SOURCE = Path(skyspan.__file__).parent


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, ""), (0.04, "0.0s"), (9.94, "9.9s"), (59.4, "59s"), (59.6, "1m00s"), (185, "3m05s"), (7440, "2h04m")],
)
def test_durations_are_short(seconds: float | None, shown: str) -> None:
    assert duration(seconds) == shown


def test_columns_are_aligned_and_colours_take_no_room() -> None:
    lines = columns([("\x1b[32mab\x1b[0m", "x"), ("abcd", "y")], ("h", "last"))
    assert re.sub(r"\x1b\[\d+m", "", lines) == "H     LAST\nab    x\nabcd  y"
    assert columns([]) == ""


def test_every_status_and_action_has_its_look() -> None:
    words = {item.value for kind in (DeploymentStatus, RunStatus, StageStatus) for item in kind}
    assert words <= set(STATUS_LOOKS)
    assert {item.value for item in Action} == set(ACTION_LOOKS)
    assert (count(1, "stage"), count(0, "stage")) == ("1 stage", "0 stages")


@pytest.mark.parametrize(
    ("status", "strict", "expected"),
    [
        (RunStatus.SUCCEEDED, True, 0),
        (RunStatus.DEGRADED, False, 0),
        (RunStatus.DEGRADED, True, 3),
        (RunStatus.FAILED, False, 1),
        (RunStatus.LOST, False, 1),
        (RunStatus.CANCELLED, True, 130),
    ],
)
def test_exit_statuses_are_as_pinned(status: RunStatus, strict: bool, expected: int) -> None:
    assert exit_status(status, strict=strict) == expected


def test_options_after_the_verb_win_over_those_before_it() -> None:
    before = remember(Globals(), {"home": "/a", "workspace": "one", "as_json": True})
    rest = {"home": "/b", "workspace": None, "as_json": False, "name": "kept"}
    after = remember(before, rest)
    assert (after.home, after.workspace, after.as_json) == ("/b", "one", True)
    assert rest == {"name": "kept"}


def test_inputs_may_hold_equals_signs_and_nothing() -> None:
    assert parse_inputs(("a=b=c", "d=")) == {"a": "b=c", "d": ""}
    for wrong in ("nothing", "=value"):
        with pytest.raises(UsageError):
            parse_inputs((wrong,))


def test_the_summary_counts_only_what_is_there() -> None:
    none = dict.fromkeys(("none", "create", "update", "replace", "destroy", "deferred"), 0)
    document = {"summary": none | {"create": 2, "deferred": 1, "none": 3}, "stages": [{}] * 6}
    assert re.sub(r"\x1b\[\d+m", "", summary(document)) == "Plan: 2 to create, 1 deferred, 3 unchanged."
    assert summary({"summary": none | {"none": 6}, "stages": [{}] * 6}) == "No changes: 6 stages as described."


def test_a_problem_as_a_document_names_its_kind_and_its_places() -> None:
    found = Diagnostic("wrong", "is wrong", Position("skyspan.yaml", 3, 5), hint="write it right")
    document = problem_document(CompositionError([found]))
    assert document["error"]["kind"] == "CompositionError"
    assert document["diagnostics"][0] | {} == {
        "code": "wrong", "severity": "error", "file": "skyspan.yaml", "line": 3, "column": 5,
        "summary": "is wrong", "detail": "", "hint": "write it right",
    }  # fmt: skip


def test_every_verb_that_a_message_names_exists() -> None:
    named = {
        (path.name, verb)
        for path in SOURCE.rglob("*.py")
        for verb in re.findall(r"[`\"': ]skyspan (?:--json )?([a-z]+)(?=[ `\"'\\])", path.read_text())
        if re.search(rf"`skyspan (?:--json )?{verb}\b", path.read_text())
    }
    assert named, "messages do name verbs"
    assert not {(file, verb) for file, verb in named if verb not in VERBS}
