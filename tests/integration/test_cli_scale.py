"""Many stages at once: they complete, whatever their shape. How fast is measured by the benchmarks."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.cli import Cli

pytestmark = pytest.mark.integration


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


def test_eight_independent_stages_run_at_the_same_time(cli: Cli) -> None:
    stages = "".join(f"  s{number}: {{uses: command, with: {{run: [sleep, 1]}}}}\n" for number in range(8))
    ran = cli.up(cli.compose(f"stages:\n{stages}"))
    assert set(ran.stages().values()) == {"succeeded"}
    # One after the other would take eight; the budget itself, 1.3, is for a machine that does nothing else.
    assert ran.document["run"]["duration_s"] < 5


def test_a_chain_of_five_hundred_completes(cli: Cli) -> None:
    stages = "".join(
        f"  s{number}: {{uses: command, needs: [{f's{number - 1}' if number else ''}], with: {{run: ['true']}}}}\n"
        for number in range(500)
    )
    app = cli.compose(f"stages:\n{stages}")
    assert list(cli.up(app).stages().values()) == ["succeeded"] * 500
    assert list(cli.up(app).stages().values()) == ["unchanged"] * 500
    destroyed = cli.json("destroy", "app", "--yes")
    assert list(destroyed.stages().values()) == ["destroyed"] * 500


def test_a_fan_of_five_hundred_completes(cli: Cli) -> None:
    names = [f"s{number}" for number in range(500)]
    stages = "".join(
        f"  {name}: {{uses: command, needs: [root], with: {{run: 'echo n={name} >> \"$SKYSPAN_OUTPUT\"'}}, "
        "outputs: {n: {type: string}}}\n"
        for name in names
    )
    joined = ", ".join(f"${{{{ stages.{name}.outputs.n }}}}" for name in names)
    app = cli.compose(
        f"stages:\n  root: {{uses: command, with: {{run: ['true']}}}}\n{stages}"
        f"  all: {{uses: command, with: {{run: cat, stdin: '{joined}'}}}}\n"
    )
    ran = cli.up(app)
    assert list(ran.stages().values()) == ["succeeded"] * 502
    assert ", ".join(names) in cli("logs", "app", "--stage", "all").out
