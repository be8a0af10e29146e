"""What a person sees and types after an interruption or a failure."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.chaos import SIGKILL, Site, processes_with
from tests.support.cli import Cli

pytestmark = pytest.mark.chaos

CHAIN = """\
stages:
  first:
    uses: command
    with: {run: 'echo first >> ledger; echo word=said >> $SKYSPAN_OUTPUT'}
    outputs: {word: {type: string}}
  second:
    uses: command
    with: {run: 'test -e fixed; echo second ${{ stages.first.outputs.word }} >> ledger'}
  third: {uses: command, needs: [second], with: {run: 'echo third >> ledger'}}
  aside: {uses: command, with: {run: 'echo aside >> ledger'}}
"""


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    made = Cli(tmp_path)
    yield made
    made.stop_all()
    for pid in processes_with(str(tmp_path).encode()):
        os.kill(pid, signal.SIGKILL)


def ledger(site: Site) -> list[str]:
    return (site.composition / "ledger").read_text().splitlines()


def test_retry_runs_the_failed_part_on_and_leaves_the_rest_alone(cli: Cli) -> None:
    site = Site(cli, cli.compose(CHAIN, "site"))
    failed = cli("up", "-f", site.composition, "--yes")
    assert failed.status == 1
    assert "skyspan retry site --from second" in failed.out
    (site.composition / "fixed").touch()
    ran = cli.json("retry", "site", "--from", "second", "--yes")
    assert ran.stages() == {"second": "succeeded", "third": "succeeded"}
    assert sorted(ledger(site)) == ["aside", "first", "second said", "third"]
    assert cli.json("status", "site").document["status"] == "deployed"


def test_retry_uses_the_composition_of_then(cli: Cli) -> None:
    site = Site(cli, cli.compose(CHAIN, "site"))
    assert cli.up(site.composition).status == 1
    (site.composition / "skyspan.yaml").write_text("skyspan: 1\nname: site\nstages: {}\n")
    (site.composition / "fixed").touch()
    ran = cli.json("retry", "site", "--from", "second", "--yes")
    assert ran.status == 0, ran


def test_retry_names_the_stages_there_are_and_asks_first(cli: Cli) -> None:
    site = Site(cli, cli.compose(CHAIN, "site"))
    assert cli.up(site.composition).status == 1
    unknown = cli("retry", "site", "--from", "fourth", "--yes")
    assert unknown.status == 1
    assert "first" in unknown.err and "third" in unknown.err
    assert cli("retry", "site", "--from", "second").status == 2


def test_an_interrupted_run_is_shown_as_such_with_what_to_type(cli: Cli) -> None:
    site = Site(cli, cli.compose(CHAIN, "site"))
    (site.composition / "fixed").touch()
    assert cli.up(site.composition, env={"SKYSPAN_FAULT": "outcome:2"}).status == SIGKILL
    assert cli.json("status", "site").document["interrupted"] is True
    [listed] = cli.json("list").document["deployments"]
    assert (listed["status"], listed["interrupted"]) == ("deploying", True)
    for said in (cli("status", "site").out, cli("list").out):
        assert "! interrupted" in said
        assert "deploying" not in said
        assert "skyspan resume site" in said and "skyspan cancel site" in said
    assert cli.json("resume", "site").status == 0
    assert cli.json("list").document["deployments"][0]["interrupted"] is False
    assert cli.json("status", "site").document["interrupted"] is False
    again = cli("resume", "site")
    assert again.status == 1
    assert "no run of site was interrupted" in again.err


def test_looking_leaves_an_interrupted_run_to_be_resumed(cli: Cli) -> None:
    site = Site(cli, cli.compose(CHAIN, "site"))
    (site.composition / "fixed").touch()
    assert cli.up(site.composition, env={"SKYSPAN_FAULT": "command.started:2"}).status == SIGKILL
    assert cli.plan(site.composition).status in {0, 1}
    ran = cli.json("resume", "site")
    assert ran.status == 0, ran
    assert sorted(ledger(site)) == ["aside", "first", "second said", "third"]


def test_an_approved_plan_still_binds_the_run_that_is_resumed(cli: Cli) -> None:
    site = Site(cli, cli.compose(CHAIN, "site"))
    (site.composition / "fixed").touch()
    saved = site.cli.folder / "plan"
    assert cli("plan", "-f", site.composition, "--out", saved).status == 0
    ran = cli.up(site.composition, "--plan", saved, env={"SKYSPAN_FAULT": "outcome:1"})
    assert ran.status == SIGKILL, ran
    [payload] = [row for (row,) in site.query("SELECT payload FROM events WHERE kind = 'run_started' ORDER BY at")][-1:]
    assert '"approved":{' in payload
    assert cli.json("resume", "site").status == 0


@pytest.mark.parametrize("verb", ["destroy", "stop"])
def test_other_verbs_are_resumed_too(cli: Cli, verb: str) -> None:
    text = """\
stages:
  a: {uses: command, with: {run: 'echo a >> ledger', destroy: 'echo -a >> ledger', stop: 'echo =a >> ledger'}}
  b:
    uses: command
    needs: [a]
    with: {run: 'echo b >> ledger', destroy: 'echo -b >> ledger', stop: 'echo =b >> ledger'}
"""
    site = Site(cli, cli.compose(text, "site"))
    assert cli.up(site.composition).status == 0
    sign = "-" if verb == "destroy" else "="
    ran = cli.json(verb, "site", "--yes", env={"SKYSPAN_FAULT": "command.started"})
    assert ran.status == SIGKILL, ran
    ran = cli.json("resume", "site")
    assert ran.status == 0, ran
    assert ledger(site) == ["a", "b", f"{sign}b", f"{sign}a"]


def test_cancelling_what_is_interrupted_ends_it_and_says_so(cli: Cli) -> None:
    site = Site(cli, cli.compose(CHAIN, "site"))
    (site.composition / "fixed").touch()
    assert cli.up(site.composition, env={"SKYSPAN_FAULT": "outcome:2"}).status == SIGKILL
    ran = cli("cancel", "site")
    assert ran.status == 0, ran
    assert "ended run" in ran.err and "engine was gone" in ran.err
    assert cli.json("status", "site").document["run"]["status"] == "cancelled"
    again = cli("cancel", "site")
    assert again.status == 1
    assert "nothing runs on site" in again.err
    assert cli.up(site.composition).status == 0


def test_what_preflight_refuses_leaves_no_deployment_behind(cli: Cli) -> None:
    missing = "stages:\n  cloud: {uses: terraform, with: {source: cloud, tool: tofu, version: '>= 99'}}\n"
    folder = cli.compose(missing, "site")
    (folder / "cloud").mkdir()
    (folder / "cloud" / "main.tf").write_text("")
    refused = cli.up(folder)
    assert refused.status not in (0, 3), refused
    assert cli.json("list").document["deployments"] == []
    assert "no deployment" in cli("status", "site").err


def test_what_preflight_refuses_leaves_the_deployment_as_it_was(cli: Cli) -> None:
    site = Site(cli, cli.compose(CHAIN, "site"))
    assert cli.up(site.composition).status == 1
    before = cli.json("status", "site").document
    (site.composition / "skyspan.yaml").write_text(
        "skyspan: 1\nname: site\nstages:\n"
        "  cloud: {uses: terraform, with: {source: cloud, tool: tofu, version: '>= 99'}}\n"
    )
    (site.composition / "cloud").mkdir()
    (site.composition / "cloud" / "main.tf").write_text("")
    assert cli.up(site.composition).status == 1
    assert cli.json("status", "site").document == before
    (site.composition / "fixed").touch()
    ran = cli.json("retry", "site", "--from", "second", "--yes")
    assert ran.stages() == {"second": "succeeded", "third": "succeeded"}, ran


@pytest.mark.parametrize("verb", ["resume", "retry", "cancel", "status"])
def test_help_fits_on_a_screen(cli: Cli, verb: str) -> None:
    said = cli(verb, "--help").out.splitlines()
    assert 5 < len(said) <= 24, said
