"""Trouble while something runs: two at once, interrupts, deaths, timeouts, and things that changed meanwhile."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.cli import Cli, alive, ended, ending, until

pytestmark = pytest.mark.integration


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    made = Cli(tmp_path)
    yield made
    made.stop_all()


def waiting(folder: Path, more: str = "") -> str:
    """A composition whose first stage waits for the file `go` in `folder`, or for an interrupt."""
    return f"""
stages:
  before: {{uses: command, with: {{run: "true"}}}}
  wait:
    uses: command
    needs: [before]
    with:
      run: |
        echo $$ > {folder}/pid
        trap 'echo saved > {folder}/saved; exit 3' INT
        echo begun
        while [ ! -e {folder}/go ]; do sleep 0.05; done
  after: {{uses: command, needs: [wait], with: {{run: "true"}}}}
{more}"""


def test_a_second_run_at_the_same_time_is_refused_and_told_who_runs(cli: Cli, tmp_path: Path) -> None:
    app = cli.compose(waiting(tmp_path))
    first = cli.start("up", "-f", app, "--yes")
    until((tmp_path / "pid").exists, "the first one runs")
    [run] = cli.json("runs", "app").document["runs"]
    for arguments in (("up", "-f", app, "--yes"), ("destroy", "app", "--yes"), ("plan", "-f", app), ("check", "app")):
        second = cli.json(*arguments)
        assert second.status == 4, arguments
        assert second.document["error"]["kind"] == "RefusedError"
        assert run["id"] in second.err
        assert run["requested_by"] in second.err
        assert "up" in second.err
        assert "skyspan cancel app" in second.err
    status = cli.json("status", "app").document
    assert (status["status"], status["run"]["status"]) == ("deploying", "running")
    assert {stage["name"]: stage["status"] for stage in status["stages"]}["wait"] == "running"
    (tmp_path / "go").touch()
    assert ended(first).status == 0
    assert cli.up(app).status == 0


def test_an_interrupt_ends_the_run_in_order(cli: Cli, tmp_path: Path) -> None:
    app = cli.compose(waiting(tmp_path))
    for number in (signal.SIGINT, signal.SIGTERM):
        (tmp_path / "pid").unlink(missing_ok=True)
        run = cli.start("--json", "up", "-f", app, "--yes")
        until((tmp_path / "pid").exists, "the stage runs")
        run.send_signal(number)
        ran = ended(run)
        assert ran.status == 130
        assert "stopping in order" in ran.err
        assert (tmp_path / "saved").exists(), "the child had its time to save"
        (tmp_path / "saved").unlink()
        assert ran.document["run"]["status"] == "cancelled"
        assert ran.stages()["wait"] == "cancelled"
        assert ran.stages()["after"] in ("cancelled", "skipped", "pending")
    (tmp_path / "go").touch()
    again = cli.up(app)
    assert again.stages() == {"before": "unchanged", "wait": "succeeded", "after": "succeeded"}


def test_a_second_interrupt_kills_at_once(cli: Cli, tmp_path: Path) -> None:
    app = cli.compose(f"""
stages:
  stubborn:
    uses: command
    with:
      run: |
        trap '' INT TERM
        echo $$ > {tmp_path}/pid
        while :; do sleep 0.1; done
""")
    run = cli.start("--json", "up", "-f", app, "--yes")
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip(), "the stage runs")
    pid = int((tmp_path / "pid").read_text())
    run.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert alive(pid)
    began = time.monotonic()
    run.send_signal(signal.SIGINT)
    ran = ended(run)
    assert time.monotonic() - began < 5
    assert ran.status == 130
    assert not alive(pid)
    assert "Ctrl-C again ends them at once" in ran.err
    assert ran.stages() == {"stubborn": "cancelled"}
    again = cli.start("up", "-f", app, "--yes")
    (tmp_path / "pid").unlink()
    until((tmp_path / "pid").exists, "the lease was given up: the next run starts")
    again.send_signal(signal.SIGINT)
    again.send_signal(signal.SIGINT)
    time.sleep(0.2)
    again.send_signal(signal.SIGINT)
    assert ended(again).status == 130


def test_cancel_asks_the_run_of_another_process_to_stop(cli: Cli, tmp_path: Path) -> None:
    app = cli.compose(waiting(tmp_path))
    run = cli.start("--json", "up", "-f", app, "--yes")
    until((tmp_path / "pid").exists, "the stage runs")
    asked = cli.json("cancel", "app")
    ran = ended(run)
    assert asked.document["run"] == ran.document["run"]["id"]
    assert (ran.status, ran.document["run"]["status"]) == (130, "cancelled")
    assert (tmp_path / "saved").exists()
    assert cli.json("cancel", "app").status == 1, "nothing runs any more"


def test_a_stage_over_its_timeout_is_stopped_and_says_so(cli: Cli, tmp_path: Path) -> None:
    app = cli.compose(f"""
stages:
  slow:
    uses: command
    timeout: 500ms
    with: {{run: "trap 'touch {tmp_path}/told; exit 1' INT; echo waiting for godot; while :; do sleep 0.05; done"}}
  free: {{uses: command, with: {{run: "true"}}}}
""")
    ran = cli.up(app)
    assert ran.status == 1
    assert ran.stages() == {"slow": "failed", "free": "succeeded"}
    error = ran.error("slow")
    assert error["kind"] == "StageTimeoutError"
    assert "did not end within 0.5 s" in error["summary"]
    assert "timeout" in error["hint"]
    assert (tmp_path / "told").exists()
    assert "waiting for godot" in cli("logs", "app").out


def test_a_composition_edited_between_runs_changes_only_what_it_must(cli: Cli) -> None:
    text = """
stages:
  one: {{uses: command, with: {{run: 'echo v={0} >> "$SKYSPAN_OUTPUT"'}}, outputs: {{v: {{type: string}}}}}}
  two: {{uses: command, with: {{run: 'echo ${{{{ stages.one.outputs.v }}}}'}}}}
  three: {{uses: command, with: {{run: 'true'}}}}
"""
    app = cli.compose(text.format("a"))
    cli.up(app)
    cli.compose(text.format("b"))
    plan = cli.plan(app)
    assert plan.changes()["one"] == "update"
    assert plan.changes()["three"] == "none"
    assert cli.up(app).stages() == {"one": "succeeded", "two": "succeeded", "three": "unchanged"}
    # Renamed as a whole, while it is deployed: verbs on what was applied still know everything.
    (app / "skyspan.yaml").write_text("this is no composition any more")
    assert cli.json("status", "app").document["status"] == "deployed"
    assert cli.json("destroy", "app", "--yes").status == 0


def test_a_stage_that_left_the_file_is_planned_for_destruction_and_destroyed(cli: Cli, tmp_path: Path) -> None:
    both = f"""
stages:
  keep: {{uses: command, with: {{run: "true"}}}}
  leave: {{uses: command, with: {{run: "touch {tmp_path}/thing", destroy: "rm {tmp_path}/thing"}}}}
"""
    app = cli.compose(both)
    cli.up(app)
    cli.compose(both.rsplit("  leave:", 1)[0])
    plan = cli.plan(app)
    assert plan.changes() == {"keep": "none", "leave": "destroy"}
    assert plan.document["summary"]["destroy"] == 1
    ran = cli.up(app)
    assert ran.stages() == {"keep": "unchanged", "leave": "destroyed"}
    assert not (tmp_path / "thing").exists()
    assert cli.up(app).stages() == {"keep": "unchanged"}


def test_a_deleted_work_tree_and_home_of_tools_lose_nothing(cli: Cli, tmp_path: Path) -> None:
    app = cli.compose("""
stages:
  cloud: {uses: terraform, with: {source: ./cloud}, outputs: {word: {type: string}}}
  one: {uses: command, with: {run: "true"}}
""")
    (app / "cloud").mkdir()
    (app / "cloud" / "main.tf").write_text(
        f"""
resource "terraform_data" "thing" {{
  input = "kept"
  provisioner "local-exec" {{
    when    = destroy
    command = "touch {tmp_path}/gone"
  }}
}}
output "word" {{
  value = terraform_data.thing.output
}}
"""
    )
    assert cli.up(app).status == 0
    shutil.rmtree(cli.home / "work")
    assert cli.up(app).stages() == {"cloud": "unchanged", "one": "unchanged"}
    shutil.rmtree(cli.home / "work")
    assert cli.json("check", "app").status == 0
    shutil.rmtree(cli.home / "work")
    assert cli.json("outputs", "app").document["merged"] == {"word": "kept"}
    assert set(cli.json("destroy", "app", "--yes").stages().values()) == {"destroyed"}
    assert (tmp_path / "gone").exists()


def test_what_was_deleted_behind_our_back_is_found_and_made_again(cli: Cli, tmp_path: Path) -> None:
    app = cli.compose(f"""
stages:
  thing: {{uses: command, with: {{run: "date > {tmp_path}/thing", creates: "{tmp_path}/thing"}}}}
  other: {{uses: command, with: {{run: "true"}}}}
""")
    cli.up(app)
    (tmp_path / "thing").unlink()
    check = cli.json("check", "app")
    assert check.status == 1
    assert check.stages() == {"thing": "failed", "other": "succeeded"}
    assert "gone" in check.error("thing")["summary"]
    assert cli.plan(app).changes() == {"thing": "create", "other": "none"}
    assert cli.up(app).stages() == {"thing": "succeeded", "other": "unchanged"}
    assert (tmp_path / "thing").exists()


def test_a_composition_folder_that_is_gone_still_can_be_destroyed(cli: Cli, tmp_path: Path) -> None:
    app = cli.compose(f"""
stages:
  thing: {{uses: command, with: {{run: "touch {tmp_path}/thing", destroy: "rm -f {tmp_path}/thing"}}}}
""")
    cli.up(app)
    shutil.rmtree(app)
    told = cli.json("destroy", "app", "--yes")
    assert (told.status, told.stages()) == (1, {"thing": "failed"})
    assert str(app) in told.error("thing")["summary"], "commands run in it: it says which folder it needs"
    app.mkdir()
    assert cli.json("destroy", "app", "--yes").stages() == {"thing": "destroyed"}
    assert not (tmp_path / "thing").exists()


def test_a_failed_destroy_can_be_repeated(cli: Cli, tmp_path: Path) -> None:
    app = cli.compose(f"""
stages:
  base: {{uses: command, with: {{run: "true", destroy: "touch {tmp_path}/base-gone"}}}}
  top: {{uses: command, needs: [base], with: {{run: "true", destroy: "test -e {tmp_path}/may-go"}}}}
""")
    cli.up(app)
    first = cli.json("destroy", "app", "--yes")
    assert first.status == 1
    assert first.stages() == {"base": "skipped", "top": "failed"}
    assert not (tmp_path / "base-gone").exists(), "what still carries something stays"
    (tmp_path / "may-go").touch()
    second = cli.json("destroy", "app", "--yes")
    assert set(second.stages().values()) == {"destroyed"}
    third = cli.json("destroy", "app", "--yes")
    assert (third.status, third.stages()) == (0, {})


def test_prevent_destroy_is_refused_and_says_so(cli: Cli) -> None:
    app = cli.compose("stages:\n  precious: {uses: command, prevent_destroy: true, with: {run: 'true'}}\n")
    cli.up(app)
    ran = cli.json("destroy", "app", "--yes")
    assert ran.status == 1
    assert "prevent_destroy" in str(ran.error("precious"))


def test_after_a_death_the_next_run_goes_on_at_once(cli: Cli, tmp_path: Path) -> None:
    app = cli.compose(waiting(tmp_path))
    run = cli.start("up", "-f", app, "--yes")
    until((tmp_path / "pid").exists, "the stage runs")
    with ending(tmp_path / "pid"):
        run.send_signal(signal.SIGKILL)
        run.communicate()
        status = cli.json("status", "app").document
        assert status["stages"][0]["status"] == "succeeded"
    until(lambda: not alive(int((tmp_path / "pid").read_text())), "what it left is gone")
    (tmp_path / "go").touch()
    began = time.monotonic()
    ran = cli.up(app)
    assert ran.status == 0, ran.err
    assert time.monotonic() - began < 15, "nobody waits for the lease of the dead"
    assert ran.stages() == {"before": "unchanged", "wait": "succeeded", "after": "succeeded"}
    [newest, dead] = cli.json("runs", "app").document["runs"]
    assert (newest["status"], dead["status"]) == ("succeeded", "lost")


def test_what_a_dead_run_left_running_is_waited_for_and_not_begun_twice(cli: Cli, tmp_path: Path) -> None:
    app = cli.compose(waiting(tmp_path))
    run = cli.start("up", "-f", app, "--yes")
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip(), "the stage runs")
    run.send_signal(signal.SIGKILL)
    run.communicate()
    pid = (tmp_path / "pid").read_text()
    with ending(tmp_path / "pid"):
        left = set((cli.home / "running").iterdir())
        second = cli.start("up", "-f", app, "--yes")
        until(lambda: set((cli.home / "running").iterdir()) - left, "the second one holds the deployment")
        assert cli.json("up", "-f", app, "--yes").status == 4
        assert alive(int(pid)), "it goes on"
        (tmp_path / "go").touch()
        assert ended(second).status == 0
    assert (tmp_path / "pid").read_text() == pid, "it ran once"
    statuses = [row["status"] for row in cli.json("runs", "app").document["runs"]]
    assert statuses == ["succeeded", "lost"]


def test_a_run_of_somebody_else_is_never_taken_for_dead(cli: Cli, tmp_path: Path) -> None:
    app = cli.compose(waiting(tmp_path))
    run = cli.start("up", "-f", app, "--yes")
    until((tmp_path / "pid").exists, "the stage runs")
    os.kill(run.pid, signal.SIGSTOP)
    try:
        assert cli.json("up", "-f", app, "--yes").status == 4, "stopped is not dead"
    finally:
        os.kill(run.pid, signal.SIGCONT)
    (tmp_path / "go").touch()
    assert ended(run).status == 0
