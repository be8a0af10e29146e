"""An engine is stopped until its lease has run out, another takes over, and then the first one wakes up."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.chaos import Site, processes_with
from tests.support.cli import Cli, ended, until

pytestmark = pytest.mark.chaos

ROUNDS = int(os.environ.get("SKYSPAN_FENCING_ROUNDS", "20"))
LEASE_S = 0.5

STAGES = [f"s{number}" for number in range(4)]


def chain() -> str:
    """Each stage notes when its command began and ended."""
    text = "stages:\n"
    for number, stage in enumerate(STAGES):
        needs = f"[s{number - 1}]" if number else "[]"
        text += f"""\
  {stage}:
    uses: command
    needs: {needs}
    with:
      run: |
        echo "{stage} $(date +%s%N) begin" >> spans
        sleep 0.25
        echo "{stage} $(date +%s%N) end" >> spans
        echo {stage} >> ledger; echo n={number} >> $SKYSPAN_OUTPUT
    outputs: {{n: {{type: string}}}}
"""
    return text


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    made = Cli(tmp_path)
    made.env["SKYSPAN_LEASE_SECONDS"] = str(LEASE_S)
    yield made
    for process in made.started:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
    made.stop_all()
    for pid in processes_with(str(tmp_path).encode()):
        os.kill(pid, signal.SIGKILL)


def test_a_zombie_engine_changes_nothing_any_more(cli: Cli) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    for number in range(ROUNDS):
        _round(cli, f"round{number}", chance, f"round {number}, seed {seed}")


def _round(cli: Cli, name: str, chance: random.Random, told: str) -> None:
    site = Site(cli, cli.compose(chain(), name))
    zombie = cli.start("up", "-f", site.composition, "--yes")
    until((site.composition / "spans").exists, "the first command runs")
    time.sleep(chance.uniform(0, 0.6))
    zombie.send_signal(signal.SIGSTOP)
    time.sleep(LEASE_S + 0.05)
    heir = cli.start("--json", "resume", name)
    time.sleep(chance.uniform(0, 1.0))
    zombie.send_signal(signal.SIGCONT)
    ran, late = ended(heir), ended(zombie)
    if late.status == 0:
        # It woke before anybody had taken over, and went on.
        assert "holds" in ran.err or "was interrupted" in ran.err, (told, ran, late)
    else:
        assert ran.status == 0, (told, ran, late)
        assert "another engine took" in late.err, (told, late)
    assert sorted(site.ledger) == STAGES, told
    _assert_no_overlap(site, told)
    runs = site.query(f"SELECT id, status FROM runs WHERE deployment = '{name}'")
    assert [status for _, status in runs] == ["succeeded"], told
    seqs = [seq for (seq,) in site.query(f"SELECT seq FROM events WHERE run_id = '{runs[0][0]}' ORDER BY seq")]
    assert seqs == list(range(1, len(seqs) + 1)), told


def _assert_no_overlap(site: Site, told: str) -> None:
    """As the stages are a chain, no two commands may ever run at the same time."""
    running = 0
    for line in sorted((site.composition / "spans").read_text().splitlines(), key=lambda text: int(text.split()[1])):
        running += 1 if line.endswith("begin") else -1
        assert 0 <= running <= 1, f"{told}: two commands at once"
