"""The pinned command line: options, documents, streams and exit statuses that scripts depend on."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.cli import ROOT, Cli, ended, until

pytestmark = pytest.mark.integration

HELLO = ROOT / "examples" / "hello"

SMALL = """
inputs: {word: {type: string, default: one}}
stages:
  first:
    uses: command
    with: {run: 'echo "word=$WORD" >> "$SKYSPAN_OUTPUT"; echo said $WORD', env: {WORD: "${{ inputs.word }}"}}
    outputs: {word: {type: string}}
  second:
    uses: command
    with: {run: 'echo "got $WORD"', env: {WORD: "${{ stages.first.outputs.word }}"}}
"""

FAILING = """
stages:
  good: {uses: command, with: {run: "true"}}
  bad: {uses: command, with: {run: "echo the last words >&2; exit 7"}}
  after: {uses: command, needs: [bad], with: {run: "true"}}
"""

DEGRADED = """
stages:
  good: {uses: command, with: {run: "true"}}
  bad: {uses: command, best_effort: true, with: {run: "exit 7"}}
"""

RUN_KEYS = {"id", "verb", "status", "started_at", "finished_at"}
STAGE_KEYS = {
    "name", "uses", "status", "change", "attempt", "started_at", "finished_at", "duration_s", "reason", "outputs"
}  # fmt: skip
TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    made = Cli(tmp_path)
    yield made
    made.stop_all()


def test_help_fits_the_first_screen_and_names_every_verb(cli: Cli) -> None:
    from skyspan.cli.main import VERBS

    ran = cli("--help")
    assert ran.status == 0
    assert len(ran.out.splitlines()) <= 24
    assert all(len(line) <= 80 for line in ran.out.splitlines())
    words = set(re.findall(r"[a-z]+", ran.out))
    assert set(VERBS) <= words


@pytest.mark.parametrize("arguments", [[], ["-h"], ["up", "--help"], ["secrets", "--help"], ["rehearse", "--help"]])
def test_help_is_there_for_every_verb(cli: Cli, arguments: list[str]) -> None:
    ran = cli(*arguments)
    assert "Usage: " in ran.out + ran.err


def test_the_version_is_printed(cli: Cli) -> None:
    assert re.fullmatch(r"skyspan \d+\.\d+\.\d+\n", cli("--version").out)


def test_global_options_go_before_and_after_the_verb(cli: Cli, tmp_path: Path) -> None:
    other = tmp_path / "other"
    before = cli("--json", "--workspace", "one", "--home", other, "secrets", "list")
    after = cli("secrets", "list", "--json", "--workspace", "one", "--home", other)
    between = cli("--workspace", "two", "secrets", "list", "--workspace", "one", "--json", "--home", other)
    assert before.document == after.document == between.document == {"workspace": "one", "secrets": []}
    assert (other / "skyspan.db").exists()
    assert not cli.database.exists()


def test_home_and_workspace_come_from_the_environment_too(cli: Cli, tmp_path: Path) -> None:
    from_home = tmp_path / "from-environment"
    ran = cli.json("secrets", "list", env={"SKYSPAN_HOME": str(from_home), "SKYSPAN_WORKSPACE": "lab"})
    assert ran.document["workspace"] == "lab"
    assert not from_home.exists(), "the option wins"


def test_the_example_does_everything_that_the_readme_promises(cli: Cli) -> None:
    assert set(cli.up(HELLO).stages().values()) == {"succeeded"}
    again = cli.up(HELLO)
    assert set(again.stages().values()) == {"unchanged"}
    changed = cli.up(HELLO, "--input", "whom=Mars")
    assert changed.stages() == {
        "folder": "unchanged", "words": "succeeded", "letter": "succeeded", "read": "unchanged"
    }  # fmt: skip
    outputs = cli.json("outputs", "hello").document
    assert outputs["stages"]["words"] == {"greeting": "Hello, Mars!", "length": 4}
    letter = Path(outputs["merged"]["file"])
    assert letter.read_text() == "Hello, Mars!\n"
    assert set(cli.json("check", "hello").stages().values()) == {"succeeded"}
    letter.write_text("scribbled over")
    drifted = cli.json("check", "hello")
    assert (drifted.status, drifted.stages()["letter"]) == (1, "failed")
    assert cli.up(HELLO, "--input", "whom=Mars").stages()["letter"] == "succeeded"
    assert set(cli.json("destroy", "hello", "--yes").stages().values()) == {"destroyed"}
    assert not letter.parent.exists()
    assert cli.json("status", "hello").document["status"] == "destroyed"


def test_the_status_document_is_as_pinned(cli: Cli) -> None:
    app = cli.compose(SMALL)
    cli.up(app)
    document = cli.json("status", "app").document
    assert set(document) >= {"deployment", "workspace", "status", "run", "stages", "health"}
    assert (document["deployment"], document["workspace"], document["status"]) == ("app", "default", "deployed")
    assert set(document["run"]) >= RUN_KEYS
    assert TIME.match(document["run"]["started_at"])
    assert TIME.match(document["run"]["finished_at"])
    assert all(set(stage) >= STAGE_KEYS for stage in document["stages"])
    first = document["stages"][0]
    assert (first["name"], first["uses"], first["status"], first["change"]) == (
        "first", "command", "succeeded", "create"
    )  # fmt: skip
    assert first["attempt"] == 1
    assert first["outputs"] == ["word"]
    assert first["duration_s"] >= 0


def test_the_plan_document_is_as_pinned(cli: Cli) -> None:
    app = cli.compose(SMALL)
    document = cli.plan(app).document
    assert set(document) >= {"deployment", "stages", "summary"}
    first, second = document["stages"]
    assert set(first) >= {"name", "uses", "change", "reason", "unknown", "resources"}
    assert all(set(resource) >= {"address", "action"} for resource in first["resources"])
    assert (first["change"], second["change"]) == ("create", "deferred")
    assert second["unknown"] == ["stages.first.outputs.word"]
    assert set(document["summary"]) == {"none", "create", "update", "replace", "destroy", "deferred"}
    assert (document["summary"]["create"], document["summary"]["deferred"]) == (1, 1)


def test_the_other_documents_are_as_pinned(cli: Cli) -> None:
    app = cli.compose(SMALL)
    run = cli.up(app).document["run"]["id"]
    listed = cli.json("list").document
    assert [item["deployment"] for item in listed["deployments"]] == ["app"]
    outputs = cli.json("outputs", "app").document
    assert outputs == {"stages": {"first": {"word": "one"}, "second": {}}, "merged": {"word": "one"}}
    events = cli.json("events", run).lines
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert (events[0]["kind"], events[-1]["kind"]) == ("run_started", "run_ended")
    logs = cli.json("logs", "app").lines
    assert [(line["stage"], line["text"]) for line in logs] == [("first", "said one"), ("second", "got one")]
    assert cli.json("logs", "app", "--stage", "second").lines == logs[1:]
    assert cli.json("runs", "app").document["runs"][0]["id"] == run
    assert cli.json("show", run[:5]).document["run"]["id"] == run
    assert cli.json("links", "app").document == {"links": [], "consoles": []}
    for verb in ("schema", "providers", "doctor"):
        assert cli.json(verb).document
    assert cli.json("validate", "-f", app).document["valid"] is True
    assert cli.json("graph", "-f", app).document["stages"][1] == {"name": "second", "needs": ["first"]}


def test_the_other_documents_are_there_for_people_too(cli: Cli) -> None:
    app = cli.compose(SMALL)
    run = cli.up(app).document["run"]["id"]
    for arguments in (
        ("list",), ("status", "app"), ("outputs", "app"), ("runs", "app"), ("show", run), ("events", run),
        ("logs", "app"), ("links", "app"), ("providers",), ("doctor",), ("check", "app"), ("validate", "-f", app),
        ("plan", "-f", app), *(("graph", "-f", app, "--format", form) for form in ("text", "mermaid", "dot")),
    ):  # fmt: skip
        ran = cli(*arguments)
        assert ran.status == 0, (arguments, ran.err)
        assert (ran.out + ran.err).strip(), arguments
        assert "\x1b" not in ran.out + ran.err, f"colours without a terminal: {arguments}"


def test_progress_goes_to_standard_error(cli: Cli) -> None:
    ran = cli.up(cli.compose(SMALL))
    assert json.loads(ran.out)
    assert "first" in ran.err
    assert "succeeded" in ran.err


def test_a_failed_run_exits_with_1_and_says_why_and_what_next(cli: Cli) -> None:
    app = cli.compose(FAILING)
    ran = cli.up(app)
    assert ran.status == 1
    assert ran.stages() == {"good": "succeeded", "bad": "failed", "after": "skipped"}
    assert "the last words" in ran.error("bad")["detail"]
    told = cli("up", "-f", app, "--yes")
    assert told.status == 1
    assert "the last words" in told.out
    assert "next: skyspan logs app --stage bad" in told.out
    assert "bad" in cli.json("show", ran.document["run"]["id"]).document["stages"][2]["reason"]


def test_a_degraded_run_exits_with_0_and_with_3_when_strict(cli: Cli) -> None:
    app = cli.compose(DEGRADED)
    plain = cli.up(app)
    assert (plain.status, plain.document["run"]["status"]) == (0, "degraded")
    assert cli.up(app, "--strict").status == 3
    assert cli.json("status", "app").document["status"] == "degraded"


def test_wrong_usage_exits_with_2_and_names_the_nearest(cli: Cli) -> None:
    for arguments, said in (
        (["stauts"], "Did you mean 'status'?"),
        (["up", "--inptu", "a=b"], "--input"),
        (["up", "-f", str(HELLO), "--input", "nonsense"], "NAME=VALUE"),
        (["up", "-f", "nowhere"], "nowhere"),
        (["up"], "there is no skyspan.yaml"),
        (["--workspace", "No Name", "list"], "workspace"),
        (["logs", "app", "--run"], "--run"),
    ):
        ran = cli(*arguments)
        assert (ran.status, ran.out) == (2, ""), arguments
        assert said in ran.err, ran.err
    assert cli.json("up", "--inptu", "a=b").document["error"]["kind"] == "UsageError"


def test_an_invalid_composition_exits_with_2_and_its_diagnostics_are_in_the_document(cli: Cli) -> None:
    app = cli.compose("stages:\n  one: {uses: comand, with: {run: 'true'}}\n")
    for verb in ("validate", "plan", "up", "graph"):
        ran = cli.json(verb, "-f", app, *(["--yes"] if verb == "up" else []))
        assert ran.status == 2, verb
        assert ran.document["diagnostics"][0]["line"] == 4
        assert re.search(r"app/skyspan\.yaml:4:\d+: error: ", ran.err)
        assert "command" in ran.err
    assert not cli.json("list").document["deployments"], "nothing is remembered of what never was"


def test_what_is_not_there_is_named_with_the_nearest(cli: Cli) -> None:
    app = cli.compose(SMALL)
    cli.up(app)
    for arguments, said in (
        (["status", "ap"], "did you mean 'app'?"),
        (["show", "zzzzzzzz"], "skyspan runs"),
        (["outputs", "app", "--stage", "thrid"], "first, second"),
        (["secrets", "remove", "nope"], "nope"),
        (["up", "-f", str(app), "--plan", "no.plan", "--yes"], "no.plan"),
    ):
        ran = cli.json(*arguments)
        assert ran.status == 1, arguments
        assert said in ran.err, ran.err
        assert ran.document["error"]["summary"]


def test_without_a_terminal_and_without_yes_it_refuses(cli: Cli) -> None:
    app = cli.compose(SMALL)
    refused = cli("up", "-f", app)
    assert refused.status == 2
    assert "--yes" in refused.err
    assert not cli.json("list").document["deployments"]
    cli.up(app)
    for verb in ("stop", "start", "destroy"):
        assert cli(verb, "app").status == 2
    assert cli.json("status", "app").document["status"] == "deployed"


def test_pending_changes_are_told_by_the_detailed_exit_status(cli: Cli) -> None:
    app = cli.compose(SMALL)
    assert cli.plan(app, "--detailed-exitcode").status == 5
    assert cli.plan(app).status == 0
    cli.up(app)
    assert cli.plan(app, "--detailed-exitcode").status == 0
    assert cli.plan(app, "--detailed-exitcode", "--input", "word=two").status == 5


def test_inputs_come_from_the_command_line_then_a_file_then_the_environment(cli: Cli, tmp_path: Path) -> None:
    app = cli.compose(SMALL)
    (tmp_path / "inputs.yaml").write_text("word: from-file\n")
    environment = {"SKYSPAN_INPUT_WORD": "from-environment"}
    everything = ("--input", "word=from-line", "--inputs", tmp_path / "inputs.yaml")
    for given, env, expected in (
        (everything, environment, "from-line"),
        (everything[2:], environment, "from-file"),
        ((), environment, "from-environment"),
        ((), {}, "one"),
    ):
        cli.up(app, *given, env=env)
        assert cli.json("outputs", "app").document["merged"]["word"] == expected


def test_a_name_makes_another_deployment_of_the_same_composition(cli: Cli) -> None:
    app = cli.compose(SMALL)
    cli.up(app)
    other = cli.json("up", "other", "-f", app, "--yes", "--input", "word=two")
    assert other.document["deployment"] == "other"
    assert cli.json("outputs", "other").document["merged"] == {"word": "two"}
    assert cli.json("outputs", "app").document["merged"] == {"word": "one"}
    assert len(cli.json("list").document["deployments"]) == 2


def test_create_leaves_an_existing_deployment_alone(cli: Cli) -> None:
    app = cli.compose(SMALL)
    assert cli.json("create", "-f", app, "--yes").status == 0
    again = cli.json("create", "-f", app, "--yes")
    assert again.status == 4
    assert "exists already" in again.err


def test_the_composition_is_the_nearest_one_upward(cli: Cli) -> None:
    below = cli.compose(SMALL) / "a" / "b"
    below.mkdir(parents=True)
    assert cli.json("validate", cwd=below).document["name"] == "app"
    cli.json("up", "--yes", cwd=below)
    assert cli.json("status", cwd=below).document["deployment"] == "app"


def test_only_limits_a_run_to_a_stage_and_what_it_needs(cli: Cli) -> None:
    app = cli.compose(FAILING)
    assert cli.up(app, "--only", "good").stages() == {"good": "succeeded"}
    assert cli.up(app, "--only", "after").stages() == {"bad": "failed", "after": "skipped"}
    assert cli.json("up", "-f", app, "--yes", "--only", "none-such").status == 2


def test_fail_fast_starts_nothing_new_after_a_failure(cli: Cli) -> None:
    stages = "".join(
        f"  s{number}: {{uses: command, needs: [{f's{number - 1}' if number else ''}], with: {{run: 'sleep 0.2'}}}}\n"
        for number in range(4)
    )
    app = cli.compose(f"stages:\n{stages}  bad: {{uses: command, with: {{run: 'exit 1'}}}}\n")
    statuses = cli.up(app, "--fail-fast").stages()
    assert statuses["bad"] == "failed"
    assert statuses["s3"] in ("skipped", "cancelled")
    assert cli.up(app).stages()["s3"] == "succeeded"


def test_stopping_and_starting_keep_what_cannot_be_stopped(cli: Cli, tmp_path: Path) -> None:
    app = cli.compose(
        f"""
stages:
  service:
    uses: command
    with:
      run: echo on > {tmp_path}/service
      stop: echo off > {tmp_path}/service
      start: echo on again > {tmp_path}/service
  data: {{uses: command, with: {{run: "true"}}}}
"""
    )
    cli.up(app)
    stopped = cli.json("stop", "app", "--yes")
    assert stopped.stages()["service"] == "stopped"
    [reason] = [stage["reason"] for stage in stopped.document["stages"] if stage["name"] == "data"]
    assert "no `stop` command" in reason
    assert (tmp_path / "service").read_text() == "off\n"
    assert cli.json("status", "app").document["status"] == "stopped"
    started = cli.json("start", "app", "--yes")
    assert started.stages() == {"service": "succeeded", "data": "unchanged"}
    assert (tmp_path / "service").read_text() == "on again\n"
    assert cli.json("status", "app").document["status"] == "deployed"


def test_following_a_log_ends_with_the_run(cli: Cli, tmp_path: Path) -> None:
    script = f"echo begun; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; echo over"
    app = cli.compose(f"stages:\n  slow: {{uses: command, with: {{run: '{script}'}}}}\n")
    run = cli.start("up", "-f", app, "--yes")
    until(lambda: "begun" in cli("logs", "app").out, "the stage says something")
    following = cli.start("--json", "logs", "app", "--follow")
    (tmp_path / "go").touch()
    texts = [json.loads(line)["text"] for line in ended(following).out.splitlines()]
    assert texts == ["begun", "over"]
    assert ended(run).status == 0


def test_init_writes_a_composition_that_runs(cli: Cli) -> None:
    assert cli("init", "fresh").status == 0
    assert cli("validate", "-f", "fresh").status == 0
    assert cli.up(Path("fresh")).status == 0
    again = cli("init", "fresh")
    assert again.status == 2
    assert "exists already" in again.err


def test_the_schema_accepts_the_examples(cli: Cli) -> None:
    import jsonschema
    import yaml

    schema = cli("schema").document
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for example in ("hello", "hybrid"):
        validator.validate(yaml.safe_load((ROOT / "examples" / example / "skyspan.yaml").read_text()))
    errors = list(validator.iter_errors({"skyspan": 1, "name": "x", "stages": {"a": {"uses": "command", "wiht": {}}}}))
    assert errors


def test_a_reader_that_has_enough_is_no_error(cli: Cli) -> None:
    app = cli.compose("stages:\n  talk: {uses: command, with: {run: 'seq 1 20000'}}\n")
    cli.up(app)
    process = subprocess.Popen(
        cli.argv("logs", "app"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=cli.env
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(30) == 0
    assert said == ""
