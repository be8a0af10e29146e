"""Every kind of fault of every kind of link, beside the supervisor that repairs it and a separate meter: how soon it is
told, how soon traffic passes again, and that nothing is left afterwards.

An ordinary run breaks each link a few times. SKYSPAN_FAULT_MINUTES=10 (`make soak`) breaks each for so long, with at
least 20 faults; SKYSPAN_FAULT_SEED repeats a schedule.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.chaos.links.fault import schedule
from tests.chaos.links.kinds import KINDS

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1500)]

ROOT = Path(__file__).resolve().parents[2]

MINUTES = float(os.environ.get("SKYSPAN_FAULT_MINUTES", "0"))

FEW = {"wireguard": 4, "ipsec": 4, "bgp": 3, "tailscale": 3, "ssh-tunnel": 4, "aws-vpn": 3}
"""How many faults an ordinary run makes: the first of each table."""

MOST_SLACK = 3.0
"""The bounds are for a machine that has a processor to spare. Where more processes want one than there are, everything
takes as many times longer, which is allowed for, up to this."""

NAMED_S = 1.0
"""Within which the cause of what is told as down is named."""

WITHDRAWN_S = 1.5
"""Within which BFD (300 ms, four times) has a route withdrawn after a cut."""


@pytest.mark.parametrize("kind", KINDS)
def test_every_fault_is_named_and_repaired_within_its_bound_and_nothing_is_left(kind: str) -> None:
    seed = int(os.environ.get("SKYSPAN_FAULT_SEED", "0")) or random.randrange(1, 100_000)
    table = KINDS[kind].faults
    count = max(20, len(table) + 10) if MINUTES else FEW[kind]
    print(f"{kind}: seed {seed}, {MINUTES:g} min: {', '.join(one.name for one in schedule(kind, table, seed, count))}")
    told = broken(kind, seed, MINUTES * 60, count)
    show(told)
    assert not told["failed"], told["failed"]
    assert len(told["faults"]) == count
    for fault in told["faults"]:
        assert fault["repaired_s"] <= fault["bound_s"] * slack(fault), fault
        assert fault["sessions"] == told["sessions"], f"a second daemon or session: {fault}"
        if fault["quiet"]:
            assert [item["what"] for item in fault["told"]] == [], "it is none of the link's"
        if fault["spared"]:
            assert "repaired" not in [item["what"] for item in fault["told"]], "what carries must not be made anew"
        if fault["named"] and fault["detected_s"] is not None and fault["outage_s"] > shows_s(fault):
            assert set(fault["causes"]) & set(fault["named"]), fault
    if kind == "bgp":
        for cut in (fault for fault in told["faults"] if fault["fault"] == "way cut"):
            assert cut["withdrawn_s"] is not None
            assert cut["withdrawn_s"] < WITHDRAWN_S * slack(cut), cut
    assert not told["left"], "links, routes, rules, files and processes are as before"
    measured_apart(told)


def shows_s(fault: dict[str, Any]) -> float:
    """How long an outage has to last for its cause to be told: one that is over before is a matter of the past."""
    return float(fault["detected_s"]) + NAMED_S * slack(fault)


def slack(fault: dict[str, Any]) -> float:
    """How many times longer things may take: processes that wanted a processor then, for each that there is."""
    return min(MOST_SLACK, max(1.0, float(fault["load"])))


def measured_apart(told: dict[str, Any]) -> None:
    """The meter, a process that repairs nothing, saw what the supervisor repaired, and says what that means."""
    meter, supervisor = told["meter"], told["supervisor"]
    assert (meter["repairing"], supervisor["repairing"]) == (False, True)
    assert meter["watched_s"] >= told["lasted_s"]
    assert meter["allowed_s_in_30_days"] == 2592.0
    for stage, link in meter["links"].items():
        assert 0 < link["availability"] <= 1
        worst = min(way["availability"] for way in link["directions"])
        assert worst == link["availability"]
        assert abs(link["availability"] - supervisor["links"][stage]["availability"]) < 0.25


def broken(kind: str, seed: int, seconds: float, count: int) -> dict[str, Any]:
    """What happened to a link in a world of its own."""
    inside = (sys.executable, "-m", "tests.chaos.links.main", kind, str(seed), f"{seconds:g}", str(count))
    argv = (sys.executable, "-m", "skyspan", "rehearse", "exec", "-f", f"examples/{KINDS[kind].example}", "--", *inside)
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=seconds * 1.5 + 280, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return document


def show(told: dict[str, Any]) -> None:
    """The matrix, and what was measured with its schedule beside it."""
    print(f"{'kind':10} {'fault':22} {'told':>6} {'repaired':>9} {'bound':>6} {'load':>5}  cause named")
    for fault in told["faults"]:
        told_s = "-" if fault["detected_s"] is None else f"{fault['detected_s']:.1f} s"
        causes = ", ".join(fault["causes"]) or "-"
        repaired, bound = f"{fault['repaired_s']:.1f} s", f"{fault['bound_s']:g} s"
        print(
            f"{told['kind']:10} {fault['fault']:22} {told_s:>6} {repaired:>9} {bound:>6} {fault['load']:>5}  {causes}"
        )
    for stage, link in told["meter"].get("links", {}).items():
        print(
            f"{told['kind']} {stage}: carried traffic {link['availability'] * 100:.2f} % "
            f"of {told['lasted_s'] / 60:.1f} min with {len(told['faults'])} faults (seed {told['seed']}), "
            f"longest outage {link['longest_outage_s']} s; "
            f"99.9 % leaves {told['meter']['allowed_s_in_30_days'] / 60:.1f} min in 30 days"
        )
