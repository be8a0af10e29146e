"""Templates of connections on the real command line: kept, taken, changed, carried along."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyrage
import pytest
from tests.support.cli import Cli

pytestmark = pytest.mark.integration

TEMPLATE = """\
# how every one of ours says it
uses: command
description: says a word
with:
  run: 'echo said $WORD $MORE; echo "word=$WORD" >> "$SKYSPAN_OUTPUT"'
  env: {WORD: "${{ inputs.word }}", TOKEN: "${{ secrets.token }}"}
"""

APP = """
inputs: {word: {type: string, default: one}}
stages:
  say: {uses: connection, with: {template: say, env: {MORE: mine}}}
  after: {uses: command, with: {run: 'echo got ${{ stages.say.outputs.word }}'}}
"""


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    made = Cli(tmp_path)
    yield made
    made.stop_all()


def add(cli: Cli, text: str = TEMPLATE, *more: str, status: int = 0) -> str:
    ran = cli("connections", "add", "say", "-", *more, stdin=text)
    assert ran.status == status, ran.err
    return ran.err


def test_templates_are_added_listed_shown_and_removed(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "say.yaml"
    file.write_text(TEMPLATE)
    assert cli.json("connections", "list").document == {"workspace": "default", "connections": []}
    added = cli.json("connections", "add", "say", file)
    assert added.document == {"workspace": "default", "name": "say", "uses": "command", "replaced": False}
    refused = cli("connections", "add", "say", file)
    assert (refused.status, "--replace" in refused.err) == (2, True)
    assert cli.json("connections", "add", "say", file, "--replace").document["replaced"] is True
    [listed] = cli.json("connections", "list").document["connections"]
    assert (listed["name"], listed["uses"], listed["description"]) == ("say", "command", "says a word")
    assert "says a word" in cli("connections", "list").out
    assert cli("connections", "show", "say").out == TEMPLATE
    shown = cli.json("connections", "show", "say").document
    assert shown["with"]["env"]["TOKEN"] == "${{ secrets.token }}"
    assert shown["used_by"] == []
    assert cli.json("connections", "list", "--workspace", "other").document["connections"] == []
    removed = cli.json("connections", "remove", "say").document
    assert removed == {"workspace": "default", "removed": "say", "used_by": []}
    assert cli("connections", "show", "say").status == 1
    assert cli("connections", "remove", "say").status == 1
    assert cli("connections", "add", "say", tmp_path / "none").status == 1
    assert cli("connections", "add", "No Name", file).status == 2


def test_a_secret_that_is_written_out_stays_out_of_store_and_screen(cli: Cli) -> None:
    canary = "canary-7f3a91"
    text = f"uses: command\nwith:\n  env: {{PASSWORD: {canary}}}\n"
    for mode in ((), ("--json",)):
        ran = cli("connections", "add", "say", "-", *mode, stdin=text)
        assert ran.status == 2
        assert canary not in ran.out + ran.err
        assert "standard input:3:19" in ran.err
    assert cli.json("connections", "list").document["connections"] == []


def test_a_deployment_is_made_with_a_template_and_outlives_it(cli: Cli) -> None:
    app = cli.compose(APP)
    unknown = cli("validate", "-f", app)
    assert unknown.status == 2
    assert "there is no connection 'say'" in unknown.err
    assert "skyspan connections add say FILE" in unknown.err
    assert not cli.home.exists(), "validate makes no store"
    add(cli)
    assert cli("secrets", "set", "token", stdin="canary-token").status == 0
    assert cli.json("validate", "-f", app).document["stages"] == ["say", "after"]
    assert "say    command" in cli("graph", "-f", app).out
    assert cli.plan(app).document["stages"][0]["uses"] == "command"
    assert cli.up(app).status == 0
    assert cli.json("outputs", "app").document["merged"] == {"word": "one"}
    assert "said one mine" in cli("logs", "app").out
    removed = cli("connections", "remove", "say")
    assert removed.status == 0
    assert "warning: app last used connection say" in removed.err
    assert cli.json("stop", "app", "--yes").status == 0
    assert cli.json("start", "app", "--yes").status == 0, "what is recorded holds the settings"
    assert cli.up(app).status == 2
    assert cli.json("destroy", "app", "--yes").status == 0


def test_a_changed_template_changes_the_plan_and_makes_saved_ones_stale(cli: Cli, tmp_path: Path) -> None:
    app = cli.compose(APP)
    add(cli)
    assert cli("secrets", "set", "token", stdin="canary-token").status == 0
    assert cli.up(app).status == 0
    assert cli.plan(app, "--out", tmp_path / "saved").changes() == {"say": "none", "after": "none"}
    add(cli, TEMPLATE.replace("echo said", "echo sang"), "--replace")
    changed = cli.plan(app)
    assert changed.changes()["say"] in ("replace", "update")
    assert "connection say was changed since app was last brought up" in changed.err
    stale = cli("up", "-f", app, "--plan", tmp_path / "saved", "--yes")
    assert stale.status == 1
    assert "template" in stale.err
    assert cli.up(app).status == 0
    assert "connection say" not in cli.plan(app).err


def test_a_mistake_in_a_template_is_shown_with_both_places(cli: Cli) -> None:
    app = cli.compose(APP.replace("word: {type", "wurd: {type"))
    add(cli)
    ran = cli("validate", "-f", app)
    assert ran.status == 2
    assert "connection template say:6:20: error: there is no input 'word'" in ran.err
    assert "stage say starts from it: app/skyspan.yaml:6:44" in ran.err
    [found] = cli.json("plan", "-f", app).document["diagnostics"]
    assert (found["file"], found["line"], found["column"]) == ("connection template say", 6, 20)


def test_an_export_takes_the_template_along(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    here, there = Cli(tmp_path / "here"), Cli(tmp_path / "there")
    app = here.compose(APP)
    add(here)
    assert here("secrets", "set", "token", stdin="canary-token").status == 0
    assert here.up(app).status == 0
    identity = pyrage.x25519.Identity.generate()
    (tmp_path / "identity").write_text(f"{identity}\n")
    exported = here.json("export", "app", tmp_path / "app.age", "--to", identity.to_public())
    assert (exported.document["connections"], exported.document["secrets"]) == (["say"], ["token"])

    add(there, TEMPLATE.replace("says a word", "another"))
    refused = there("import", tmp_path / "app.age", "--identity", tmp_path / "identity")
    assert refused.status == 2
    assert "connection say" in refused.err
    assert there("connections", "remove", "say").status == 0
    assert there("import", tmp_path / "app.age", "--identity", tmp_path / "identity").status == 0
    assert there("connections", "show", "say").out == TEMPLATE
    assert there.up(app).status == 0


def test_a_backup_holds_the_templates(cli: Cli, tmp_path: Path) -> None:
    add(cli)
    assert cli("backup", tmp_path / "backup").status == 0
    assert cli("connections", "remove", "say").status == 0
    assert cli("restore", tmp_path / "backup", "--replace", "--yes").status == 0
    assert cli("connections", "show", "say").out == TEMPLATE


def test_a_rehearsal_has_the_templates_that_its_composition_names(cli: Cli) -> None:
    world = "rehearsal:\n  sites: {lab: {prefix: 203.0.113.0/24}}\n  hosts: {box: {site: lab, address: 203.0.113.9}}\n"
    app = cli.compose(world + APP)
    add(cli)
    assert cli("connections", "add", "unnamed", "-", stdin="uses: command").status == 0
    inside = (cli.python, "-m", "skyspan", "--json", "connections", "list")
    ran = cli("rehearse", "exec", "-f", app, "--", *inside)
    assert ran.status == 0, ran.err
    assert [item["name"] for item in ran.document["connections"]] == ["say"]
