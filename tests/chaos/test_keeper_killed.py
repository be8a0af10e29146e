"""The keeper and what it keeps are killed, alone and with everything else; records lie about processes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.chaos import SIGKILL, Site, kill_keepers, processes_with
from tests.support.cli import Cli, alive, ended, until

from skyspan.transports.keeper.address import keeper_place

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
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for logs in Path("/dev/shm").glob(f"skyspan-{os.getuid()}-*"):
        # What was left by keepers that are killed here, and whose homes go with the test's folder.
        with contextlib.suppress(OSError):
            if str(tmp_path) in str((logs / ".of").readlink()):
                shutil.rmtree(logs)


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


def test_a_command_that_was_killed_alone_has_failed_and_says_by_what(cli: Cli) -> None:
    site, pid = begun(cli)
    os.killpg(pid, signal.SIGKILL)
    ran = ended(cli.started[-1])
    assert ran.status == 1
    document = cli.json("status", "one").document
    assert "was ended by SIGKILL" in document["stages"][0]["error"]["summary"], document
    go(site)
    assert cli.up(site.composition).status == 0
    site.assert_sound(["s1"])


def test_a_command_that_was_killed_while_no_engine_was_there_has_failed_too(cli: Cli) -> None:
    site, pid = begun(cli)
    kill_engine(cli)
    os.killpg(pid, signal.SIGKILL)
    ran = cli.json("resume", "one")
    assert ran.stages() == {"s1": "failed"}, ran
    assert "was ended by SIGKILL" in ran.error("s1")["summary"]
    go(site)
    assert cli.up(site.composition).status == 0
    site.assert_sound(["s1"])


def test_raw_output_of_a_dead_keeper_whose_home_is_gone_is_swept_by_the_next_keeper(cli: Cli, tmp_path: Path) -> None:
    _, pid = begun(cli)
    logs = keeper_place(cli.home).logs
    assert [path.name for path in logs.iterdir() if path.name != ".of"], "there is raw output"
    kill_engine(cli)
    kill_keepers(Site(cli, tmp_path))
    os.killpg(pid, signal.SIGKILL)
    (tmp_path / "other").mkdir()
    other = Cli(tmp_path / "other")
    folder = other.compose("stages:\n  a: {uses: command, with: {run: 'true'}}\n", "first")
    assert other.up(folder).status == 0
    assert logs.exists(), "an interrupted run's output is still to be heard"
    shutil.rmtree(cli.home)
    kill_keepers(Site(other, folder))
    assert other.up(other.compose("stages:\n  a: {uses: command, with: {run: 'true'}}\n", "second")).status == 0
    assert not logs.exists()


def test_a_keeper_forgets_raw_output_that_no_journal_tells_of(cli: Cli) -> None:
    site, pid = begun(cli)
    stale = keeper_place(cli.home).logs / "goneandpast.s1.1.1.0"
    stale.write_bytes(b"nobody asks for it")
    kill_engine(cli)
    kill_keepers(site)
    os.killpg(pid, signal.SIGKILL)
    assert cli.json("resume", "one").stages() == {"s1": "lost"}
    assert not stale.exists()


def restarted(home: Path) -> None:
    """Make the home look as after a restart of the machine: an earlier boot wrote all of it, and tmpfs is empty."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    for path in (*home.glob("keeper/*/*.journal"), *home.glob("running/*")):
        path.write_text(path.read_text().replace(boot, "00000000-an-earlier-boot"))
    shutil.rmtree(keeper_place(home).logs, ignore_errors=True)


@pytest.mark.parametrize(("more", "outcome"), [("", "lost"), ("check: grep -q s1 ledger", "succeeded")])
def test_after_a_restart_of_the_machine_nothing_stale_is_believed(cli: Cli, more: str, outcome: str) -> None:
    site, pid = begun(cli, more)
    kill_engine(cli)
    kill_keepers(site)
    os.killpg(pid, signal.SIGKILL)
    restarted(cli.home)
    assert list(cli.home.glob("keeper/*/keeper.sock")), "a socket that nobody listens at was left"
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as stranger:
        # Its id is the one of the command, from before.
        for path in cli.home.glob("keeper/*/*.journal"):
            path.write_text(path.read_text().replace(f'"pid": {pid}', f'"pid": {stranger.pid}'))
        go(site)
        began = time.monotonic()
        ran = cli.json("resume", "one")
        assert ran.stages() == {"s1": outcome}, ran
        assert time.monotonic() - began < 15, "it waited for a lease that nobody can hold any more"
        assert stranger.poll() is None, "a stranger was stopped"
        stranger.kill()
    if outcome == "lost":
        assert "skyspan retry one --from s1" in ran.error("s1")["hint"]
        assert cli.json("retry", "one", "--from", "s1", "--yes").status == 0
    site.assert_sound(["s1"])


def test_a_home_that_was_copied_to_another_machine_waits_for_the_lease_and_then_tells_what_it_cannot_know(
    cli: Cli, tmp_path: Path
) -> None:
    cli.env["SKYSPAN_LEASE_SECONDS"] = "20"
    site, pid = begun(cli)
    kill_engine(cli)
    (tmp_path / "there").mkdir()
    there = Cli(tmp_path / "there", env=dict(cli.env))
    shutil.copytree(cli.home, there.home, ignore=shutil.ignore_patterns("*.sock"))
    for sign in there.home.glob("running/*"):
        sign.write_text("another-boot another-machine")
    for path in there.home.glob("keeper/*/*.journal"):
        path.write_text(path.read_text().replace(f'"pid": {pid}', '"pid": 2').replace('"boot": "', '"boot": "other'))
    # Nothing here tells that the engine is gone.
    assert there.json("status", "one").document["interrupted"] is False
    refused = there.json("resume", "one")
    assert refused.status == 4, refused
    assert "holds default/one: up" in refused.err and "expires by itself" in refused.err
    with contextlib.closing(sqlite3.connect(there.database)) as database:
        database.execute("UPDATE leases SET expires_at = 1")
        database.commit()
    assert there.json("status", "one").document["interrupted"] is True
    assert "skyspan resume one" in there("status", "one").out
    ran = there.json("resume", "one")
    assert ran.stages() == {"s1": "lost"}, ran
    assert "nobody can know" in ran.error("s1")["summary"]
    assert alive(pid), "the command on the first machine was touched"
    go(site)
    assert cli.json("resume", "one").status == 0
    site.assert_sound(["s1"])


def test_two_users_of_one_store_are_told_of_each_other(cli: Cli, tmp_path: Path) -> None:
    cli.env |= {"SKYSPAN_LEASE_SECONDS": "1.5", "SKYSPAN_STORE": str(cli.home / "skyspan.db"), "LOGNAME": "ann"}
    site, pid = begun(cli, CHECK)
    (tmp_path / "bob").mkdir()
    bob = Cli(tmp_path / "bob", env=cli.env | {"LOGNAME": "bob"})
    bob.home.mkdir()
    shutil.copy(cli.home / "key", bob.home / "key")
    shutil.copytree(cli.home / "keys", bob.home / "keys")
    for refused in (bob.up(site.composition), bob.json("resume", "one")):
        assert refused.status in (1, 4), refused
    refused = bob.json("destroy", "one", "--yes")
    assert refused.status == 4
    assert "ann@" in refused.err and "skyspan cancel one" in refused.err
    assert bob.json("status", "one").document["run"]["requested_by"].startswith("ann@")
    kill_engine(cli)
    # In another home there is no sign of the engine's death: the lease has to run out.
    until(lambda: bob.json("status", "one").document["interrupted"], "the lease has run out")
    os.killpg(pid, signal.SIGKILL)
    go(site)
    ran = bob.json("resume", "one")
    assert ran.stages() == {"s1": "succeeded"}, ran
    assert site.ledger == ["s1"]
    leases = site.query("SELECT owner, epoch, held FROM leases")
    assert leases[0][0].startswith("bob@") and leases[0][1:] == (2, 0)
