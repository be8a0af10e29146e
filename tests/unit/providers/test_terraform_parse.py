"""The tools' JSON stream, from lines recorded of real runs."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from skyspan.contracts.transport import Stream
from skyspan.model.change import Action
from skyspan.model.secret import Secret
from skyspan.providers.terraform.failure import Sources
from skyspan.providers.terraform.listen import Listener
from skyspan.providers.terraform.parse import Cutter, Message, diagnosis_of, planned_of, progress_of, understood
from skyspan.testing.provider_world import RecordingReporter

SAMPLES = Path(__file__).parent / "terraform_samples"
BOTH = pytest.mark.parametrize("tool", ["tofu", "terraform"])


def sample(name: str) -> bytes:
    return (SAMPLES / name).read_bytes()


def heard(data: bytes, secrets: frozenset[Secret] = frozenset()) -> tuple[Listener, RecordingReporter]:
    report = RecordingReporter()
    listener = Listener(report, Sources("cloud", "/private"), secrets)
    listener.hear(Stream.OUT, data)
    listener.finish()
    return listener, report


def test_messages_are_the_same_at_any_split_points() -> None:
    data = sample("tofu-apply-create.jsonl")
    whole = list(Cutter().feed(data))
    seed = 7
    chance = random.Random(seed)
    for _ in range(50):
        cutter, rest = Cutter(), data
        found: list[Message] = []
        while rest:
            size = chance.randint(1, 200)
            found += cutter.feed(rest[:size])
            rest = rest[size:]
        assert [*found, *cutter.finish()] == whole, f"seed {seed}"


def test_the_last_line_counts_without_its_end() -> None:
    cutter = Cutter()
    assert list(cutter.feed(b'{"@message": "half')) == []
    assert list(cutter.feed(b' done"}')) == []
    assert [message.text for message in cutter.finish()] == ["half done"]


@pytest.mark.parametrize("line", ["panic: oh no", "[1, 2]", '{"no": "message"}', "{broken", "\x1b[31mred"])
def test_what_is_no_message_is_text(line: str) -> None:
    assert list(Cutter().feed(line.encode() + b"\n")) == [Message("text", line)]


def test_bytes_that_are_no_text_do_not_stop_it() -> None:
    assert [message.type for message in Cutter().feed(b"\xff\xfe\n\n  \n")] == ["text"]


@BOTH
def test_planned_changes_and_outputs_are_found(tool: str) -> None:
    listener, _ = heard(sample(f"{tool}-plan-change.jsonl"))
    assert {moved.address: moved.action for moved in listener.planned} == {
        "terraform_data.plain": Action.UPDATE,
        'terraform_data.scripted["a b"]': Action.REPLACE,
    }
    assert listener.outputs == ("size",)
    assert listener.drifted == []


@BOTH
def test_an_apply_is_told_step_by_step_without_data_sources(tool: str) -> None:
    listener, report = heard(sample(f"{tool}-apply-create.jsonl"))
    steps = [(address, action, state) for address, action, state, _ in report.progressed]
    assert sorted(steps) == [
        ("terraform_data.plain", "create", "done"),
        ("terraform_data.plain", "create", "started"),
        ('terraform_data.scripted["a b"]', "create", "done"),
        ('terraform_data.scripted["a b"]', "create", "started"),
    ]
    assert all(detail.startswith("id=") for *_, state, detail in report.progressed if state == "done")
    assert 'terraform_data.scripted["a b"]: (local-exec): hello' in report.lines
    assert any(line.startswith("Apply complete!") for line in report.lines)
    assert sorted(listener.made) == ["terraform_data.plain", 'terraform_data.scripted["a b"]']
    assert listener.begun == {}


def test_what_had_only_begun_when_the_output_ended_is_known() -> None:
    lines = sample("tofu-apply-create.jsonl").splitlines(keepends=True)
    first_done = next(at for at, line in enumerate(lines) if b'"apply_complete"' in line and b"create" in line)
    listener, _ = heard(b"".join(lines[:first_done]))
    assert sorted(listener.begun) == ["terraform_data.plain", 'terraform_data.scripted["a b"]']
    assert listener.made == {}


def test_drift_that_needs_no_change_is_told_apart_from_planned_changes() -> None:
    listener, _ = heard(sample("tofu-aws-settled.jsonl"))
    assert listener.planned == []
    assert "aws_route_table.r" in [moved.address for moved in listener.drifted]


@BOTH
def test_a_syntax_error_has_its_place(tool: str) -> None:
    listener, report = heard(sample(f"{tool}-syntax-error.jsonl"))
    error = listener.diagnoses[0]
    assert (error.severity, error.file, error.line) == ("error", "bad.tf", 1)
    assert report.lines[0] == "cloud/bad.tf:1:35: error: Unclosed configuration block"


def test_an_unknown_type_is_shown_by_its_message_and_noise_is_not() -> None:
    lines = [
        {"@message": "brand new", "@level": "info", "type": "never_seen"},
        {"@message": "inner workings", "@level": "debug", "type": "log"},
        {"@message": "two\nlines", "@level": "info"},
    ]
    _, report = heard("\n".join(json.dumps(line) for line in lines).encode())
    assert report.lines == ["brand new", "two", "lines"]


def test_secrets_of_the_settings_are_masked_in_what_is_told() -> None:
    line = json.dumps({"@message": "it is hush-hush here", "@level": "info"}).encode()
    _, report = heard(line, frozenset({Secret("hush-hush")}))
    assert report.lines == ["it is *** here"]


def test_reading_and_doing_nothing_are_no_changes() -> None:
    for action in ("noop", "read", "open", "brand-new"):
        body = {"change": {"resource": {"addr": "a.b"}, "action": action}}
        assert planned_of(Message("planned_change", "", body=body)) is None
        assert progress_of(Message("apply_start", "", body={"hook": body["change"]})) is None


def test_forgetting_moving_and_importing_are_updates_with_a_note() -> None:
    found = {}
    for action in ("forget", "remove", "move", "import"):
        body = {"change": {"resource": {"addr": "a.b"}, "action": action}}
        moved = planned_of(Message("planned_change", "", body=body))
        assert moved is not None
        found[action] = (moved.action, moved.note)
    assert found == {
        "forget": (Action.UPDATE, "forgotten, not destroyed"),
        "remove": (Action.UPDATE, "forgotten, not destroyed"),
        "move": (Action.UPDATE, "moved"),
        "import": (Action.UPDATE, "imported"),
    }


def test_a_diagnostic_without_place_or_snippet_is_read() -> None:
    body = {"diagnostic": {"severity": "error", "summary": "s", "detail": "d", "range": None, "snippet": None}}
    found = diagnosis_of(Message("diagnostic", "s", body=body))
    assert found is not None
    assert (found.summary, found.file, found.line, found.code) == ("s", "", 0, "")


def test_only_version_one_of_the_protocol_is_understood() -> None:
    assert [understood(version) for version in ("1.0", "1.2", "1.99", "2.0", "0.9", "10.1")] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]
