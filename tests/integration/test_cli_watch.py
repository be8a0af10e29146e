"""`skyspan watch` and `skyspan links --diagnose` over a hub with two spokes: what is down is named and repaired."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
set -eu
skyspan() { "$PYTHON" -m skyspan "$@"; }
skyspan up -f "$EXAMPLE" --yes >/dev/null 2>up.log || { cat up.log >&2; exit 1; }
"$PYTHON" -m skyspan --json watch hub --for 120 > watched &
watch=$!
until grep -q '"what":"up"' watched; do sleep 0.2; done
echo "killed $(date +%s.%N)"
kill -9 $(pgrep -x wireguard-go | head -1)
until [ "$(grep -c '"what":"up"' watched)" = 2 ]; do sleep 0.1; done
echo "back $(date +%s.%N)"
"$PYTHON" -m skyspan.rehearsal fault cut office north >/dev/null
until grep -q '"cause"' watched; do sleep 0.1; done
until [ "$(grep -c '"what":"down"' watched)" = 2 ]; do sleep 0.1; done
skyspan --json links hub --diagnose > diagnosed
"$PYTHON" -m skyspan.rehearsal fault restore office north >/dev/null
until [ "$(grep -c '"what":"up"' watched)" = 3 ]; do sleep 0.1; done
kill -INT $watch
wait $watch
skyspan --json runs hub > runs
skyspan --json status hub > status
"""


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """What the commands printed in a world in which a daemon was killed and a way was cut."""
    shown = 'for f in watched diagnosed runs status; do echo "== $f"; cat $f; done'
    script = f"cd $(mktemp -d); {SCRIPT.strip()}\n{shown}"
    argv = [sys.executable, "-m", "skyspan", "rehearse", "exec", "-f", "examples/hub", "--", "sh", "-c", script]
    env = {**os.environ, "PYTHON": sys.executable, "EXAMPLE": str(ROOT / "examples" / "hub")}
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    head, *parts = done.stdout.split("== ")
    found = {name: text for name, _, text in (part.partition("\n") for part in parts)}
    times = dict(line.split() for line in head.splitlines() if line.startswith(("killed", "back")))
    return {
        "lines": [json.loads(line) for line in found["watched"].splitlines()],
        "diagnosed": json.loads(found["diagnosed"]),
        "runs": json.loads(found["runs"])["runs"],
        "status": json.loads(found["status"]),
        "repaired_in": float(times["back"]) - float(times["killed"]),
    }


def test_a_killed_daemon_is_named_and_repaired_within_seconds(told: dict[str, Any]) -> None:
    what = [line["what"] for line in told["lines"] if "what" in line]
    begin = what.index("cause")
    assert what[begin : begin + 2] == ["cause", "down"], "the host itself says it: no third miss is needed"
    cause = next(line for line in told["lines"] if line.get("what") == "cause")
    assert cause["cause"] == "interface-missing"
    repair = next(line for line in told["lines"] if line.get("what") == "repair")
    assert repair["host"] == cause["host"], "what the diagnosis names is tried first"
    print(f"repaired in {told['repaired_in']:.1f} s")
    assert told["repaired_in"] < 12, "three misses and a repair: 5 s on a machine that does nothing else"


def test_a_cut_is_diagnosed_and_measured(told: dict[str, Any]) -> None:
    causes = {finding["cause"] for finding in told["diagnosed"]["links"]["link"]}
    assert causes & {"handshake-missing", "unreachable"}, told["diagnosed"]
    summary = told["lines"][-1]["links"]["link"]
    assert summary["outages"] >= 2
    assert 0 < summary["availability"] < 1
    assert summary["allowed_s_in_30_days"] == told["lines"][-1]["allowed_s_in_30_days"] == 2592.0
    assert "interface-missing" in summary["faults"]
    assert {("office-gw", "north-gw"), ("north-gw", "office-gw")} <= {
        (way["from"], way["to"]) for way in summary["directions"]
    }


def test_every_repair_is_a_run_and_the_deployment_stands_as_before(told: dict[str, Any]) -> None:
    verbs = [run["verb"] for run in told["runs"]]
    assert "repair" in verbs
    assert verbs[-1] == "up"
    assert told["status"]["status"] == "deployed"
