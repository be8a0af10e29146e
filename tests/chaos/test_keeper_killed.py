"""The keeper and what it keeps are killed, alone and with everything else; records lie about processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.chaos import SIGKILL, Site, kill_keepers, processes_with
from tests.support.cli import Cli, alive, ended, until

pytestmark = pytest.mark.chaos

ONE = """\
stages:
  s1:
    uses: command
    with:
      run: |
        echo $$ > pid
        echo begin
        until [ -e go ]; do sleep 0.05; done
        echo s1 >> ledger
        echo n=1 >> $SKYSPAN_OUTPUT
      {more}
    outputs: {n: {type: string}}
"""


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    made = Cli(tmp_path)
    yield made
    made.stop_all()
    for pid in processes_with(str(tmp_path).encode()):
        os.kill(pid, signal.SIGKILL)


CHECK = "check: grep -q s1 ledger"


def begun(cli: Cli, more: str = "") -> tuple[Site, int]:
    """A site whose only stage waits for the file `go`, and the id of its command. Its engine was started last."""
    site = Site(cli, cli.compose(ONE.replace("{more}", more), "one"))
    cli.start("up", "-f", site.composition, "--yes")
    until(lambda: "begin" in cli("logs", "one").out if cli.database.exists() else False, "the command runs")
    return site, int((site.composition / "pid").read_text())


def go(site: Site) -> None:
    (site.composition / "go").touch()


def kill_engine(cli: Cli) -> None:
    cli.started[-1].kill()
    cli.started[-1].wait()


def test_after_all_was_killed_a_command_without_evidence_is_in_doubt(cli: Cli) -> None:
    site, pid = begun(cli)
    kill_engine(cli)
    kill_keepers(site)
    os.kill(pid, signal.SIGKILL)
    ran = cli.json("resume", "one")
    assert ran.status == 1
    assert ran.stages() == {"s1": "lost"}
    error = ran.error("s1")
    assert error["kind"] == "InDoubtError"
    assert "skyspan retry one --from s1" in error["hint"]
    assert site.ledger == []


def test_what_is_in_doubt_is_not_begun_again_unasked_and_retry_settles_it(cli: Cli) -> None:
    site, pid = begun(cli)
    kill_engine(cli)
    kill_keepers(site)
    os.kill(pid, signal.SIGKILL)
    refused = cli("up", "-f", site.composition, "--yes")
    assert refused.status == 1
    assert "in doubt: s1" in refused.err
    assert "skyspan retry one --from s1" in refused.err
    go(site)
    ran = cli.json("retry", "one", "--from", "s1", "--yes")
    assert ran.stages() == {"s1": "succeeded"}, ran
    site.assert_sound(["s1"])


def test_after_all_was_killed_evidence_decides(cli: Cli) -> None:
    site, pid = begun(cli, CHECK)
    kill_engine(cli)
    kill_keepers(site)
    os.kill(pid, signal.SIGKILL)
    go(site)
    ran = cli.json("resume", "one")
    assert ran.status == 0, ran
    site.assert_sound(["s1"])


def test_a_command_outlives_its_keeper_and_is_never_run_beside_itself(cli: Cli) -> None:
    site, pid = begun(cli, CHECK)
    kill_keepers(site)
    go(site)
    ran = ended(cli.started[-1])
    # How it ended is unknown to the engine that had it started; it did not end before its command had.
    assert ran.status == 1
    assert not alive(pid)
    assert site.ledger == ["s1"]
    assert cli.up(site.composition).status == 0
    assert site.ledger.count("s1") <= 2


def test_another_process_with_the_recorded_id_is_not_taken_for_the_command(cli: Cli) -> None:
    site, pid = begun(cli)
    kill_engine(cli)
    kill_keepers(site)
    os.kill(pid, signal.SIGKILL)
    [journal] = cli.home.glob("keeper/*/*.journal")
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as stranger:
        for line in lines:
            if "pid" in line:
                line["pid"] = stranger.pid
        journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
        ran = cli.json("cancel", "one")
        assert ran.status == 0, ran
        assert cli.json("status", "one").stages() == {"s1": "cancelled"}
        assert stranger.poll() is None, "a stranger was stopped"
        stranger.kill()


def test_cancelling_a_run_whose_engine_is_dead_stops_its_command_in_order(cli: Cli) -> None:
    site, pid = begun(cli)
    kill_engine(cli)
    assert alive(pid)
    ran = cli.json("cancel", "one")
    assert ran.status == 0, ran
    assert not alive(pid)
    document = cli.json("status", "one").document
    assert document["run"]["status"] == "cancelled"
    assert [stage["status"] for stage in document["stages"]] == ["cancelled"]
    assert site.ledger == []


def test_a_keeper_left_with_nothing_to_do_ends_and_leaves_nothing(cli: Cli) -> None:
    site = Site(cli, cli.compose(ONE.replace("{more}", ""), "one"))
    go(site)
    assert cli.up(site.composition).status == 0
    until(lambda: not site.keepers(), "the keeper ended", timeout_s=30)
    assert [path.name for path in cli.home.glob("keeper/*/*")] == ["keeper.lock"]


def test_the_engine_killed_at_a_crash_point_leaves_no_secret_on_disk(cli: Cli) -> None:
    cli("secrets", "set", "token", stdin="canary-4711")
    text = """\
stages:
  s1:
    uses: command
    with:
      run: 'cat; echo $TOKEN; echo s1 >> ledger; echo n=1 >> $SKYSPAN_OUTPUT; sleep 1'
      stdin: "${{ secrets.token }}"
      env: {TOKEN: "${{ secrets.token }}"}
    outputs: {n: {type: string}}
"""
    site = Site(cli, cli.compose(text, "one"))
    ran = cli.up(site.composition, env={"SKYSPAN_FAULT": "command.started"})
    assert ran.status == SIGKILL
    until(lambda: site.ledger, "the command goes on")
    found = [path for path in cli.home.rglob("*") if path.is_file() and b"canary-4711" in path.read_bytes()]
    assert not found
    site.converge()
    site.assert_sound(["s1"])
    assert "canary-4711" not in cli("logs", "one").out
