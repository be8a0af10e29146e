"""`skyspan state` on a real stage: look, go back, push, unlock; what is refused, what is remembered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.support.cli import Cli, Ran, ended, until

from skyspan.cli.main import skyspan

pytestmark = pytest.mark.integration

COMPOSITION = """stages:
  cloud:
    uses: terraform
    with: {source: ./cloud, tool: tofu, variables: {size: %d, pace: "%s"}}
"""

CONFIGURATION = """
variable "size" {
  type = number
}
variable "pace" {
  type = string
}
resource "terraform_data" "a" {
  input            = var.size
  triggers_replace = var.pace
  provisioner "local-exec" {
    command = "while [ -e ${var.pace} ]; do sleep 0.1; done"
  }
}
"""


class Stage:
    """A stage with a real state, looked at by its commands."""

    def __init__(self, cli: Cli) -> None:
        self.cli = cli
        self.folder = cli.compose(COMPOSITION % (1, "gone"))
        (self.folder / "cloud").mkdir()
        (self.folder / "cloud" / "main.tf").write_text(CONFIGURATION)

    def up(self, size: int, pace: str = "gone") -> Ran:
        self.cli.compose(COMPOSITION % (size, pace))
        ran = self.cli("up", "-f", self.folder, "--yes")
        assert ran.status == 0, ran
        return ran

    def state(self, *arguments: str, stdin: str = "", exits: int = 0) -> Ran:
        ran = self.cli("state", *arguments, "--stage", "cloud", stdin=stdin, cwd=self.folder)
        assert ran.status == exits, ran
        return ran

    def told(self, *arguments: str, stdin: str = "") -> dict[str, Any]:
        document: dict[str, Any] = self.state(*arguments, "--json", stdin=stdin).document
        return document

    def pulled(self, *arguments: str) -> dict[str, Any]:
        document: dict[str, Any] = self.state("pull", *arguments).document
        return document


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    cli = Cli(tmp_path)
    yield Stage(cli)
    cli.stop_all()


def size_in(state: dict[str, Any]) -> object:
    return state["resources"][0]["instances"][0]["attributes"]["input"]["value"]


def test_a_stages_state_can_be_looked_into_and_taken_back(stage: Stage) -> None:
    assert "no deployment" in stage.state("list", exits=1).err
    stage.up(1)
    stage.up(2)
    listed = stage.told("list")
    assert [item["address"] for item in listed["resources"]] == ["terraform_data.a"]
    assert (listed["deployment"], listed["stage"], listed["in_doubt"], listed["lock"]) == ("app", "cloud", [], None)
    seen = stage.state("list").out
    assert "terraform_data.a" in seen
    assert "\x1b" not in seen, "no colours into a pipe"
    assert f"serial {listed['serial']}, lineage {listed['lineage']}" in seen
    (entry,) = stage.told("history")["history"]
    assert (entry["event"], entry["at"][-1]) == ("replaced", "Z")

    pulled = stage.state("pull", "--version", str(entry["serial"]))
    assert size_in(pulled.document) == 1
    assert "secrets in clear" in pulled.err
    again = stage.told("rollback", "--to", str(entry["serial"]), "--yes")
    assert again["serial"] == listed["serial"] + 1
    told = stage.state("history").out
    assert "replaced by a command" in told
    assert f"replaced by serial {entry['serial']} again, by hand" in told
    assert "keeps no version 99" in stage.state("rollback", "--to", "99", "--yes", exits=1).err
    assert stage.told("unlock", "--yes")["unlocked"] is None
    assert "not in doubt" in stage.state("settle", "terraform_data.a", "--absent", exits=1).err
    assert "has no stage" in stage.cli("state", "list", "app", "--stage", "lab").err
    stage.up(2)
    assert size_in(stage.pulled()) == 2
    remembered = sorted(item["what"] for item in stage.cli("audit", "app", "--json").document["accesses"])
    assert remembered == ["state pulled", "state pulled", "state rolled back", "state unlocked"]


def test_a_state_may_be_pushed_by_hand_and_whoever_does_is_remembered(stage: Stage) -> None:
    stage.up(1)
    first = stage.state("pull").out
    stage.up(2)
    refused = stage.state("push", "--yes", stdin=first, exits=1).err
    assert f"that state (serial {json.loads(first)['serial']}) is older than the one that stands" in refused
    assert "--force" in refused
    assert "damaged or no state at all" in stage.state("push", "--yes", stdin="nonsense", exits=1).err
    assert "standard input is empty" in stage.state("push", "--yes", exits=2).err
    assert "add --yes" in stage.state("push", stdin=first, exits=2).err
    forced = stage.told("push", "--yes", "--force", stdin=first)
    # The tools judge a newer tool's state by its format, not by that tool's version.
    mine = stage.pulled() | {"serial": 50, "terraform_version": "99.0.0"}
    assert size_in(mine) == 1
    assert stage.told("push", "--yes", stdin=json.dumps(mine))["serial"] == 50
    stage.up(2)
    stood = stage.pulled()
    assert stood["serial"] > 50
    assert size_in(stood) == 2
    accesses = stage.cli("audit", "app", "--json").document["accesses"]
    pushed = [item["detail"] for item in accesses if item["what"] == "state pushed"]
    assert pushed == ["cloud, serial 50", f"cloud, serial {forced['serial']}, by force"]


def test_while_a_run_goes_on_the_state_is_shown_and_cannot_be_changed(stage: Stage) -> None:
    stage.up(1)
    state = stage.state("pull").out
    wait = stage.folder / "wait"
    wait.touch()
    stage.cli.compose(COMPOSITION % (2, wait))
    run = stage.cli.start("up", "-f", stage.folder, "--yes")
    until(lambda: stage.told("list")["lock"] is not None, "the tool holds the lock")
    lock = stage.told("list")["lock"]
    assert (lock["attempt"], lock["running"]) == (1, True)
    [newest, *_] = stage.cli("runs", "app", "--json").document["runs"]
    assert lock["run"] == newest["id"]
    assert f"locked by attempt 1 of run {lock['run']}" in stage.state("list").out
    for verb in (("push", "--force"), ("rollback", "--to", "1"), ("unlock",)):
        refused = stage.state(*verb, "--yes", stdin=state, exits=4).err
        assert lock["run"] in refused, refused
    wait.unlink()
    assert ended(run).status == 0
    assert stage.told("list")["lock"] is None
    assert size_in(stage.pulled()) == 2


@pytest.mark.parametrize("verb", ["", "list", "pull", "push", "history", "rollback", "settle", "unlock"])
def test_the_help_of_each_verb_fits_a_screen(verb: str) -> None:
    ran = CliRunner().invoke(skyspan, ["state", *([verb] if verb else []), "--help"])
    assert ran.exit_code == 0
    assert len(ran.output.splitlines()) <= 24
    assert max(map(len, ran.output.splitlines())) <= 80
