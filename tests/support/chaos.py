"""A deployment whose effects leave traces in a ledger outside, and what must hold after any catastrophe."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.cli import Cli, Ran, until
from tests.support.nursery import Nursery

SIGKILL = -signal.SIGKILL
RECOVERY_S = 5.0
"""The most that picking a run up may take, besides what its own commands take, on a machine with nothing else to do."""


def reference_dag(stages: int = 40, fan: int = 8, pause_s: float = 0.0) -> str:
    """Layers of `fan` stages behind one root; each appends its name to the ledger and says so. Every other one can be
    undone, so that it remembers durably that it begins."""
    lines = ["stages:"]
    for number in range(stages):
        layer = range(max(0, _first(number, fan) - fan), _first(number, fan)) if number else ()
        needs = [f"s{need}" for need in layer][number % 3 :: 3] or [f"s{need}" for need in list(layer)[:1]]
        wait = f"sleep {pause_s}; " if pause_s else ""
        lines.append(f"  s{number}:")
        lines.append("    uses: command")
        lines.append(f"    needs: [{', '.join(needs)}]")
        run = f"echo begin s{number}; {wait}echo s{number} >> ledger; echo n={number} >> $SKYSPAN_OUTPUT; echo end"
        undo = "" if number % 2 else f", destroy: 'echo -s{number} >> ledger'"
        lines.append(f"    with: {{run: '{run}'{undo}}}")
        lines.append("    outputs: {n: {type: string}}")
    return "\n".join(lines) + "\n"


def _first(number: int, fan: int) -> int:
    """The first stage of the layer that a stage is in."""
    return 0 if number == 0 else 1 + (number - 1) // fan * fan


@dataclass
class Site:
    """A deployment in a home of its own."""

    cli: Cli
    composition: Path
    ask: Callable[[str], list[Any]] | None = None
    """How to question the store, where it is no SQLite file."""
    nursery: Nursery | None = None
    """Where engines come from, where there are many."""
    recovery_s: float = 0.0
    """How long it took to go on, the last time."""

    @property
    def name(self) -> str:
        return self.composition.name

    @property
    def ledger(self) -> list[str]:
        path = self.composition / "ledger"
        return path.read_text().split() if path.exists() else []

    def query(self, sql: str) -> list[Any]:
        if self.ask is not None:
            return self.ask(sql)
        with contextlib.closing(sqlite3.connect(self.cli.database)) as database:
            return database.execute(sql).fetchall()

    def keepers(self) -> list[int]:
        """The ids of this home's keepers."""
        return processes_with(str(self.cli.home / "keeper").encode())

    def json(self, *arguments: object, env: Mapping[str, str] | None = None) -> Ran:
        """Run the command line with `--json`."""
        if self.nursery is not None:
            return self.nursery.run(self.cli, "--json", *arguments, env=env)
        return self.cli.json(*arguments, env=env)

    def up(self, env: Mapping[str, str] | None = None) -> Ran:
        """`up` as a document."""
        return self.json("up", "-f", self.composition, "--yes", env=env)

    def converge(self) -> Ran:
        """Finish what was interrupted, whatever it was; what never began is begun again.

        `recovery_s` is how long it takes until the first event is added, or until there is none to add."""
        began = time.time()
        ran = self.json("resume", self.name)
        done = time.time()
        if ran.status:
            assert any(
                word in ran.err + ran.out for word in ("before it began", "was interrupted", "no deployment", "no run")
            ), brief(ran)
            ran = self.up()
        assert ran.status == 0, brief(ran)
        [(added,)] = self.query(f"SELECT min(at) FROM events WHERE at >= {began}")
        self.recovery_s = (added or done) - began
        return ran

    def has_store(self) -> bool:
        """Whether there is a store yet."""
        return self.ask is not None or self.cli.database.exists()

    def assert_sound(self, stages: Sequence[str]) -> None:
        """Every run has ended, no event is missing, every stage took effect exactly once."""
        assert sorted(self.ledger) == sorted(stages), "effects were lost or doubled"
        seqs: dict[str, list[int]] = {}
        for run, seq in self.query("SELECT run_id, seq FROM events ORDER BY run_id, seq"):
            seqs.setdefault(run, []).append(seq)
        for run, found in seqs.items():
            assert found == list(range(1, len(found) + 1)), f"events of {run} are missing"
        assert not self.query("SELECT id FROM runs WHERE status = 'running'")
        assert not self.query("SELECT run_id FROM leases WHERE held"), "a lease was left behind"
        document = self.json("status", self.name).document
        assert document["status"] == "deployed", document
        outputs = self.json("outputs", self.name).document["stages"]
        for stage in stages:
            assert outputs[stage] == {"n": stage[1:]}, f"outputs of {stage} were lost"
        assert not list(self.cli.home.glob("keeper/*/*.journal")), "the keeper still keeps something"
        assert not list(self.cli.home.glob("work/**/output.*")), "outputs lie about in clear"


def brief(ran: Ran) -> str:
    """How a command ended, without the forty stages that ended well."""
    return f"exit status {ran.status}: ...{ran.out[-600:]}\n...{ran.err[-600:]}"


def processes_with(word: bytes) -> list[int]:
    """Ids of living processes whose command line holds `word`."""
    found = []
    for path in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if path.name.isdigit() and word in (path / "cmdline").read_bytes() and int(path.name) != os.getpid():
                found.append(int(path.name))
    return found


def kill_keepers(site: Site) -> None:
    """Kill this home's keepers. An engine that is there starts another one at once."""
    killed = site.keepers()
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not set(killed) & set(site.keepers()), "the keeper is dead")
