"""An engine is stopped until its lease has run out, another takes over, and then the first one wakes up."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.support.chaos import Site, processes_with
from tests.support.cli import Cli, until
from tests.support.nursery import Engine, Nursery
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.chaos

ROUNDS = int(os.environ.get("SKYSPAN_FENCING_ROUNDS", "200"))
AT_ONCE = 8
LEASE_S = 0.4

STAGES = [f"s{number}" for number in range(3)]


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
        sleep 0.2
        echo "{stage} $(date +%s%N) end" >> spans
        echo {stage} >> ledger; echo n={number} >> $SKYSPAN_OUTPUT
    outputs: {{n: {{type: string}}}}
"""
    return text


TOFU = """
resource "terraform_data" "one" {
  provisioner "local-exec" {
    command = "date +'one %s%N begin' >> $LEDGER/spans; sleep 0.4; date +'one %s%N end' >> $LEDGER/spans"
  }
}
resource "terraform_data" "two" {
  input = terraform_data.one.id
  provisioner "local-exec" {
    command = "date +'two %s%N begin' >> $LEDGER/spans; sleep 0.2; date +'two %s%N end' >> $LEDGER/spans"
  }
}
"""


REFUSED = "('stale write refused', 'stale engine stopped')"
_TOOLS = frozenset({"tofu", "sh", "sleep", "date"})


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as made:
        yield made


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as made:
        yield made


@pytest.fixture(params=("sqlite", "postgresql"))
def place(request: pytest.FixtureRequest, tmp_path: Path, nursery: Nursery) -> Iterator[Callable[[int], Place]]:
    """Homes for rounds that go on at the same time."""

    def make(number: int) -> Place:
        folder = tmp_path / str(number)
        folder.mkdir()
        cli = Cli(folder)
        cli.env["SKYSPAN_LEASE_SECONDS"] = str(LEASE_S)
        if request.param == "sqlite":
            return Place(cli, nursery, None)
        server: PostgresServer = request.getfixturevalue("server")
        url = cli.env["SKYSPAN_STORE"] = server.database()
        database = url.partition("@/")[2].partition("?")[0]
        return Place(cli, nursery, lambda sql: server.execute(database, sql))

    yield make
    for pid in processes_with(str(tmp_path).encode()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


class Place:
    """A home in which one round goes on at a time."""

    def __init__(self, cli: Cli, nursery: Nursery, ask: Callable[[str], list[Any]] | None) -> None:
        self.cli, self.nursery, self.ask = cli, nursery, ask

    def site(self, name: str, text: str) -> Site:
        return Site(self.cli, self.cli.compose(text, name), self.ask, self.nursery)


def test_a_zombie_engine_changes_nothing_any_more(place: Callable[[int], Place]) -> None:
    seed = random.randrange(2**32)
    began, rounds = time.monotonic(), ROUNDS // 2
    places = [place(number) for number in range(AT_ONCE)]

    def some(number: int) -> int:
        mine = range(number, rounds, AT_ONCE)
        return sum(_round(places[number], each, random.Random(f"{seed}.{each}"), seed) for each in mine)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        refused = sum(pool.map(some, range(AT_ONCE)))
    print(f"{refused} of {rounds} zombies had lost their lease, in {time.monotonic() - began:.0f} s")
    assert refused >= rounds // 2, f"seed {seed}: hardly any engine was taken over from"


def _round(place: Place, number: int, chance: random.Random, seed: int) -> bool:
    """Whether the engine that was stopped had lost its lease."""
    name = f"round{number}"
    told = f"{name}, seed {seed}"
    site = place.site(name, chain())
    zombie = place.nursery.start(place.cli, "up", "-f", site.composition, "--yes")
    until((site.composition / "spans").exists, f"the first command runs ({told})")
    time.sleep(chance.uniform(0, 0.4))
    zombie.signal(signal.SIGSTOP)
    time.sleep(LEASE_S)
    heir = place.nursery.start(place.cli, "--json", "resume", name)
    if number % 5:
        until(lambda: heir.over.is_set() or _epoch(site) > 1, f"the lease is taken over ({told})")
    time.sleep(chance.uniform(0, 0.6))
    zombie.signal(signal.SIGCONT)
    ran, late = heir.ended(), zombie.ended()
    # Its next command may have been refused by the keeper, before it wanted to write anything.
    refusals = site.query(f"SELECT detail FROM audit WHERE what IN {REFUSED} AND deployment = '{name}'")
    if late.status == 0:
        # It woke before anybody had taken over, and went on; or it had been stopped with SQLite's lock in its hands.
        assert any(word in ran.err for word in ("holds", "was interrupted", "locked for too long")), (told, ran, late)
        assert not refusals, (told, refusals)
    else:
        assert ran.status == 0, (told, ran, late)
        assert "another engine took" in late.err, (told, late)
        assert refusals and all("under epoch 1" in detail for (detail,) in refusals), (told, refusals)
    assert sorted(site.ledger) == STAGES, told
    _assert_in_turn(site, told)
    _assert_one_history(site, told)
    return late.status != 0


@pytest.mark.parametrize("first", ["engine", "tool"])
def test_a_zombie_whose_tool_was_stopped_too_changes_nothing_any_more(
    place: Callable[[int], Place], first: str
) -> None:
    home = place(0)
    text = "stages:\n  s0: {uses: terraform, with: {source: cloud, tool: tofu}}\n"
    site = home.site("cloudy", text)
    (site.composition / "cloud").mkdir()
    (site.composition / "cloud" / "main.tf").write_text(TOFU)
    home.cli.env["LEDGER"] = str(site.composition)
    zombie = home.nursery.start(home.cli, "up", "-f", site.composition, "--yes")
    until((site.composition / "spans").exists, "tofu applies")
    _stop_between_writes(zombie, home)
    stopped = _tools(home.cli)
    for pid in stopped:
        with contextlib.suppress(ProcessLookupError):  # the one that only told the time
            os.kill(pid, signal.SIGSTOP)
    time.sleep(LEASE_S)
    heir = home.nursery.start(home.cli, "--json", "resume", "cloudy")
    until(lambda: heir.over.is_set() or _epoch(site) > 1, "the lease is taken over")
    wake = [[zombie.pid], stopped]
    for pids in wake if first == "engine" else wake[::-1]:
        time.sleep(0.3)
        assert not heir.over.is_set(), "the heir did not wait for the tool of the zombie"
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    late, ran = zombie.ended(), heir.ended()
    assert ran.status == 0, (ran, late)
    assert late.status != 0 and "another engine took" in late.err, late
    assert site.query(f"SELECT 1 FROM audit WHERE what IN {REFUSED}")
    spans = (site.composition / "spans").read_text()
    assert [spans.count(f"{name} ") for name in ("one", "two")] == [2, 2], f"made twice, or never:\n{spans}"
    _assert_in_turn(site, first)
    _assert_one_history(site, first)
    again = home.nursery.run(home.cli, "--json", "up", "-f", site.composition, "--yes")
    assert again.stages() == {"s0": "unchanged"}, again


def _stop_between_writes(engine: Engine, home: Place) -> None:
    """Stop the engine, and not while it has SQLite's lock in its hands: that would stop whoever comes after, too."""

    def stopped() -> bool:
        engine.signal(signal.SIGSTOP)
        if home.ask is not None:
            return True
        with contextlib.closing(sqlite3.connect(home.cli.database, timeout=0.1, isolation_level=None)) as database:
            try:
                database.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                engine.signal(signal.SIGCONT)
                return False
            database.execute("ROLLBACK")
            return True

    until(stopped, "the engine is stopped between two writes")


def _tools(cli: Cli) -> list[int]:
    """The processes of OpenTofu, and all that they have started, in this home."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            ours = f"LEDGER={cli.env['LEDGER']}".encode() in (path / "environ").read_bytes()
            if ours and (path / "comm").read_text().strip() in _TOOLS:
                found.append(int(path.name))
    assert found
    return found


def _epoch(site: Site) -> int:
    [(epoch,)] = site.query(f"SELECT epoch FROM leases WHERE deployment = '{site.name}'")
    return int(epoch)


def _assert_in_turn(site: Site, told: str) -> None:
    """As they are a chain, no two commands may ever run at the same time."""
    running = 0
    for line in sorted((site.composition / "spans").read_text().splitlines(), key=lambda text: int(text.split()[1])):
        running += 1 if line.endswith("begin") else -1
        assert 0 <= running <= 1, f"{told}: two commands at once"


def _assert_one_history(site: Site, told: str) -> None:
    """One run that succeeded, its events without a gap, and nobody who came too late in between."""
    runs = site.query(f"SELECT id, status FROM runs WHERE deployment = '{site.name}' ORDER BY started_at")
    assert [status for _, status in runs] == ["succeeded"], told
    rows = site.query(f"SELECT seq, at FROM events WHERE run_id = '{runs[0][0]}' ORDER BY seq")
    assert [seq for seq, _ in rows] == list(range(1, len(rows) + 1)), told
    assert all(earlier <= later for (_, earlier), (_, later) in pairwise(rows)), f"{told}: events out of order"
    assert not site.query(f"SELECT 1 FROM leases WHERE held AND deployment = '{site.name}'"), told
