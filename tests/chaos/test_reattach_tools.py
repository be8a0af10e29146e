"""An engine is killed while OpenTofu or Ansible is at work: that comes to its end, and nothing is done twice."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.chaos import Site, processes_with
from tests.support.cli import Cli, until

pytestmark = pytest.mark.chaos

TOFU = """
resource "terraform_data" "thing" {
  count = 3
  provisioner "local-exec" {
    command = <<-EOT
      echo begin ${count.index} >> $LEDGER/made
      until [ -e $LEDGER/go ]; do sleep 0.05; done
      echo end ${count.index} >> $LEDGER/made
    EOT
  }
}
output "ids" { value = terraform_data.thing[*].id }
"""
TERRAFORM = "stages:\n  s0: {uses: terraform, with: {source: cloud, tool: tofu}, outputs: {ids: {type: list}}}\n"

PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.shell: |
        echo begin >> {folder}/made
        until [ -e {folder}/go ]; do sleep 0.05; done
        echo end >> {folder}/made; touch {folder}/done
      args: {creates: "{folder}/done"}
"""
ANSIBLE = """\
hosts:
  box: {address: 127.0.0.1, vars: {ansible_connection: local}}
stages:
  s0: {uses: ansible, with: {playbook: play.yaml, hosts: [box]}}
"""


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    made = Cli(tmp_path)
    made.env["LEDGER"] = str(tmp_path)
    yield made
    made.stop_all()
    for pid in processes_with(str(tmp_path).encode()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def made(cli: Cli) -> list[str]:
    path = cli.folder / "made"
    return path.read_text().splitlines() if path.exists() else []


def clouded(cli: Cli) -> Site:
    """A site whose only stage is at work with OpenTofu, three resources at once; its engine was killed."""
    site = Site(cli, cli.compose(TERRAFORM, "site"))
    (site.composition / "cloud").mkdir()
    (site.composition / "cloud" / "main.tf").write_text(TOFU)
    cli.start("up", "-f", site.composition, "--yes")
    until(lambda: len(made(cli)) == 3, "tofu applies")
    cli.started[-1].kill()
    cli.started[-1].wait()
    return site


def test_a_resume_while_tofu_still_applies_waits_for_it_and_makes_nothing_twice(cli: Cli) -> None:
    site = clouded(cli)
    heir = cli.start("--json", "resume", "site")
    until(lambda: site.query("SELECT 1 FROM leases WHERE epoch = 2"), "the run is taken up")
    assert len(made(cli)) == 3
    assert heir.poll() is None, "it did not wait"
    (cli.folder / "go").touch()
    out, err = heir.communicate(timeout=60)
    assert heir.returncode == 0, out + err
    assert sorted(made(cli)) == sorted(f"{what} {number}" for what in ("begin", "end") for number in range(3))
    _assert_settled(cli, site)


def test_a_resume_after_tofu_ended_without_an_engine_takes_up_what_it_saved(cli: Cli) -> None:
    site = clouded(cli)
    (cli.folder / "go").touch()
    until(lambda: not processes_with(b"tofu\x00apply\x00-json\x00-input=false\x00" + bytes(cli.home)), "tofu ended")
    assert list(cli.home.rglob("errored.tfstate")), "tofu had nobody to give its state to"
    ran = cli.json("resume", "site")
    assert ran.status == 0, ran
    assert len(made(cli)) == 6, made(cli)
    assert not list(cli.home.rglob("errored.tfstate"))
    _assert_settled(cli, site)


def _assert_settled(cli: Cli, site: Site) -> None:
    runs = cli.json("runs", "site").document["runs"]
    assert [run["status"] for run in runs] == ["succeeded"]
    ids = cli.json("outputs", "site").document["merged"]["ids"]
    assert len(set(ids)) == 3
    again = cli.up(site.composition)
    assert again.stages() == {"s0": "unchanged"}, again
    assert len(cli.json("state", "list", "site", "--stage", "s0").document["resources"]) == 3
    assert cli.json("destroy", "site", "--yes").status == 0
    assert len(made(cli)) == 6


def test_a_resume_while_a_playbook_still_runs_waits_for_it_and_runs_nothing_beside_it(cli: Cli) -> None:
    site = Site(cli, cli.compose(ANSIBLE, "site"))
    (site.composition / "play.yaml").write_text(PLAY.replace("{folder}", str(cli.folder)))
    cli.start("up", "-f", site.composition, "--yes")
    until(lambda: made(cli), "the playbook runs")
    cli.started[-1].kill()
    cli.started[-1].wait()
    heir = cli.start("--json", "resume", "site")
    until(lambda: site.query("SELECT 1 FROM leases WHERE epoch = 2"), "the run is taken up")
    assert heir.poll() is None, "it did not wait"
    (cli.folder / "go").touch()
    out, err = heir.communicate(timeout=60)
    assert heir.returncode == 0, out + err
    assert made(cli) == ["begin", "end"]
    assert cli.json("status", "site").stages() == {"s0": "succeeded"}
