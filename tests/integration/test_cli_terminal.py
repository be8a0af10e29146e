"""The command line on a terminal: questions, the live view, colours, and keys pressed in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from tests.support.cli import Cli, alive, until
from tests.support.terminal import Screen, Terminal

pytestmark = pytest.mark.integration

APP = """
stages:
  first: {uses: command, with: {run: "for i in 1 2 3 4 5; do echo line $i; sleep 0.1; done"}}
  second: {uses: command, needs: [first], with: {run: "sleep 0.2"}}
"""

OpenTerminal = Callable[..., Terminal]


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


@pytest.fixture
def terminal(cli: Cli) -> Iterator[OpenTerminal]:
    opened: list[Terminal] = []

    def open_terminal(*arguments: object, env: Mapping[str, str] | None = None) -> Terminal:
        opened.append(Terminal(cli.argv(*arguments), cli.env | dict(env or {}), cli.folder))
        return opened[-1]

    yield open_terminal
    for made in opened:
        made.close()


def test_the_screen_moves_up_and_erases() -> None:
    screen = Screen()
    screen.feed("one\r\ntwo\r\n\x1b[1A\x1b[2K\x1b[1;32mzwei\x1b[0m\r\n")
    assert screen.text() == "one\nzwei\n"


def test_a_yes_carries_out_the_plan_that_was_shown(cli: Cli, terminal: OpenTerminal) -> None:
    window = terminal("up", "-f", cli.compose(APP))
    window.wait_for("[y/N]")
    assert "Plan: 2 to create." in window.screen()
    window.type("y\n")
    assert window.end() == 0
    assert cli.json("status", "app").document["status"] == "deployed"


def test_a_no_touches_nothing(cli: Cli, terminal: OpenTerminal) -> None:
    for answer in ("n\n", "\n", "\x03"):
        window = terminal("up", "-f", cli.compose(APP))
        window.wait_for("[y/N]")
        window.type(answer)
        assert window.end() == (130 if answer == "\x03" else 1)
        assert cli.json("status", "app").document["status"] == "pending"


def test_a_no_is_one_document_too_where_documents_are_asked_for(cli: Cli, terminal: OpenTerminal) -> None:
    window = terminal("up", "-f", cli.compose(APP), "--json")
    window.wait_for("[y/N]")
    window.type("n\n")
    assert window.end() == 1
    assert '"kind": "Declined"' in window.screen()


def test_destroying_asks_too_and_names_what_goes(cli: Cli, terminal: OpenTerminal) -> None:
    cli.up(cli.compose(APP))
    window = terminal("destroy", "app")
    window.wait_for("[y/N]")
    shown = window.screen()
    assert shown.index("second") < shown.index("first")
    window.type("y\n")
    assert window.end() == 0
    assert cli.json("status", "app").document["status"] == "destroyed"


def test_the_live_view_leaves_one_clean_summary(cli: Cli, terminal: OpenTerminal) -> None:
    window = terminal("up", "-f", cli.compose(APP), "--yes")
    window.wait_for("line 3")
    assert window.end() == 0
    screen = window.screen()
    assert screen.count("first") == screen.count("second") == 1, screen
    assert "line 3" not in screen, "the log is not left on the screen"
    assert "stages done" not in screen, "the live view is gone"
    assert "app ✓ succeeded (up): 2 succeeded" in screen
    assert window.raw.count("\x1b[?25h") >= window.raw.count("\x1b[?25l") > 0, "the cursor is back"


def test_the_live_view_shows_only_what_fits(cli: Cli, terminal: OpenTerminal) -> None:
    stages = "".join(f"  s{number:02}: {{uses: command, with: {{run: 'sleep 0.3'}}}}\n" for number in range(60))
    window = terminal("up", "-f", cli.compose(f"stages:\n{stages}"), "--yes")
    window.wait_for("running")
    assert window.end() == 0
    screen = window.screen()
    assert "stages done" not in screen
    assert all(screen.count(f"s{number:02} ") == 1 for number in range(60)), screen


def test_a_warning_before_the_run_stays_on_the_screen(cli: Cli, terminal: OpenTerminal) -> None:
    app = cli.compose("""
stages:
  odd: {uses: command, best_effort: true, with: {run: [no-such-program-here]}}
  slow: {uses: command, with: {run: "sleep 0.5"}}
""")
    window = terminal("up", "-f", app, "--yes")
    window.end()
    assert "no-such-program-here is not here yet" in window.screen()
    assert "stages done" not in window.screen()


def test_colours_are_only_for_terminals_that_want_them(cli: Cli, terminal: OpenTerminal) -> None:
    app = cli.compose(APP)
    cli.up(app)
    coloured = terminal("status", "app")
    coloured.end()
    assert "\x1b[32m" in coloured.raw
    for env in ({"NO_COLOR": "1"}, {"NO_COLOR": "yes"}):
        for arguments in (("status", "app"), ("plan", "-f", app), ("up", "-f", app, "--yes"), ("status", "none")):
            plain = terminal(*arguments, env=env)
            plain.end()
            colours = [part for part in plain.raw.split("\x1b[")[1:] if part.split("m")[0] in COLOURS]
            assert not colours, (arguments, plain.raw)


COLOURS = {*(str(number) for number in range(30, 38)), *(str(number) for number in range(90, 98)), "1;31", "1;32"}


def test_ctrl_c_once_stops_in_order_and_twice_at_once(cli: Cli, terminal: OpenTerminal, tmp_path: Path) -> None:
    app = cli.compose(f"""
stages:
  stubborn:
    uses: command
    with:
      run: |
        trap 'echo asked >> {tmp_path}/asked' INT
        echo $$ > {tmp_path}/pid
        while :; do sleep 0.1; done
""")
    window = terminal("up", "-f", app, "--yes")
    until((tmp_path / "pid").exists, "the stage runs")
    window.type("\x03")
    window.wait_for("stopping in order")
    until((tmp_path / "asked").exists, "the child is asked to end")
    pid = int((tmp_path / "pid").read_text())
    assert alive(pid), "it is given time"
    window.type("\x03")
    assert window.end(15) == 130
    assert not alive(pid)
    assert "Ctrl-C again ends them at once" in window.raw
    screen = window.screen()
    assert "cancelled" in screen
    assert "next: skyspan up" in screen
    document = cli.json("status", "app").document
    assert document["run"]["status"] == "cancelled"
    assert [stage["status"] for stage in document["stages"]] == ["cancelled"]
