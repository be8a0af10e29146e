"""An engine is killed while a command runs: the next one hears all of it, once, and takes its own exit status."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.chaos import Site, processes_with
from tests.support.cli import ROOT, Cli, ended, until

pytestmark = pytest.mark.chaos

TALKING = """\
stages:
  s1:
    uses: command
    with:
      run: |
        echo started >> starts
        echo one; sleep 0.2; echo two >&2; sleep 0.2; printf 'half a '
        until [ -e go ]; do sleep 0.02; done
        echo line; sleep 0.2; echo three >&2; sleep 0.2; seq 1 2000; printf 'no end'
        echo s1 >> ledger; echo n=1 >> $SKYSPAN_OUTPUT
        exit {status}
    outputs: {{n: {{type: string}}}}
"""


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    made = Cli(tmp_path)
    yield made
    made.stop_all()
    for pid in processes_with(str(tmp_path).encode()):
        os.kill(pid, signal.SIGKILL)


def begin(cli: Cli, name: str, status: int) -> Site:
    site = Site(cli, cli.compose(TALKING.format(status=status), name))
    cli.start("up", "-f", site.composition, "--yes")
    until(lambda: cli.database.exists() and "two" in cli("logs", name).out, "the command runs")
    return site


def said(cli: Cli, name: str) -> list[tuple[Any, ...]]:
    return [(line["stage"], line["attempt"], line["stream"], line["text"]) for line in cli.json("logs", name).lines]


@pytest.mark.parametrize("status", [0, 3])
def test_the_log_and_the_exit_status_are_those_of_an_undisturbed_run(cli: Cli, status: int) -> None:
    calm, shaken = begin(cli, "calm", status), begin(cli, "shaken", status)
    (calm.composition / "go").touch()
    expected = ended(cli.started[-2])
    cli.started[-1].kill()
    cli.started[-1].wait()
    (shaken.composition / "go").touch()
    ran = cli.json("resume", "shaken")
    assert ran.status == expected.status == (1 if status else 0)
    assert said(cli, "shaken") == said(cli, "calm")
    assert (shaken.composition / "starts").read_text() == "started\n"
    if status:
        assert "exited with status 3" in ran.error("s1")["summary"]
    else:
        shaken.assert_sound(["s1"])


def test_another_verb_picks_up_what_runs_and_goes_on_with_its_own_run(cli: Cli) -> None:
    site = begin(cli, "site", 0)
    cli.started[-1].kill()
    cli.started[-1].wait()
    (site.composition / "go").touch()
    ran = cli.up(site.composition)
    assert ran.stages() == {"s1": "unchanged"}
    assert (site.composition / "starts").read_text() == "started\n"
    site.assert_sound(["s1"])


def test_an_upgrade_while_a_command_runs_does_not_disturb_it(cli: Cli) -> None:
    older = cli.folder / "older"
    shutil.copytree(ROOT / "src", older, ignore=shutil.ignore_patterns("__pycache__"))
    newer = cli.env["PYTHONPATH"]
    cli.env["PYTHONPATH"] = os.pathsep.join([str(older), newer])
    site = begin(cli, "site", 0)
    cli.started[-1].kill()
    cli.started[-1].wait()
    shutil.rmtree(older)
    cli.env["PYTHONPATH"] = newer
    (site.composition / "go").touch()
    ran = cli.json("resume", "site")
    assert ran.stages() == {"s1": "succeeded"}, ran
    site.assert_sound(["s1"])


def test_a_flood_of_output_is_heard_whole_by_the_next_engine(cli: Cli) -> None:
    text = """\
stages:
  s1:
    uses: command
    with:
      run: |
        echo began
        until [ -e go ]; do sleep 0.02; done
        seq -f '%.0f {filler}' 1 80000
        echo s1 >> ledger; echo n=1 >> $SKYSPAN_OUTPUT
    outputs: {n: {type: string}}
"""
    # More than a segment.
    site = Site(cli, cli.compose(text.replace("{filler}", "long line " * 24), "flood"))
    cli.start("up", "-f", site.composition, "--yes")
    until(lambda: cli.database.exists() and "began" in cli("logs", "flood").out, "the command runs")
    cli.started[-1].kill()
    cli.started[-1].wait()
    (site.composition / "go").touch()
    until(lambda: site.ledger, "the command ended without an engine")
    site.converge()
    lines = cli("logs", "flood").out.splitlines()
    assert len(lines) == 80001
    site.assert_sound(["s1"])
