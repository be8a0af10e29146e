"""The tunnel example as a person uses it: forwards outlive the command, a silent cut is noticed, what is killed comes
back, and a destroy leaves the machine as it was."""

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

SCRIPT = r"""
set -eu
skyspan() { "$PYTHON" -m skyspan "$@"; }
fault() { "$PYTHON" -m skyspan.rehearsal fault "$@" >/dev/null; }
now() { date +%s.%N; }
said() { grep -c "$1" "$SKYSPAN_HOME"/forwarders/*/log; }
forwarders() {
  for file in /proc/[0-9]*/cmdline; do tr '\0' '\n' < $file 2>/dev/null | tail -n 1; done |
    grep -c "^$SKYSPAN_HOME/forwarders/[0-9a-f]*$" || :
}
answers() { "$@" "$PYTHON" -I -S -c "
import socket, sys
with socket.create_connection(('127.0.0.1', $port), 2) as there:
    there.settimeout(2)
    there.sendall(b'GET /requests HTTP/1.0\r\n\r\n')
    sys.exit(b'200' not in there.recv(100))
" 2>/dev/null; }
console() { port=18080; answers; }
mirror() { port=19000; answers ip netns exec lab-gw; }
state() {
  ss -Hltn | sort; ip netns exec lab-gw ss -Hltn | sort
  forwarders; find "$SKYSPAN_HOME" -path '*forwarders*'
}

state > before
skyspan up -f "$EXAMPLE" --yes >/dev/null 2>up.log || { cat up.log >&2; exit 1; }
console; mirror
echo "processes $(forwarders)"
cut=$(now); fault cut control lab
until [ "$(said 'is gone')" = 1 ]; do sleep 0.05; done
echo "noticed $cut $(now)"
restored=$(now); fault restore control lab
until console; do sleep 0.05; done
echo "reconnected $restored $(now)"
until mirror; do sleep 0.05; done
echo "rebound $restored $(now)"
"$PYTHON" -m skyspan --json watch tunnel --for 60 > watched &
watch=$!
until grep -q '"what":"up"' watched; do sleep 0.1; done
killed=$(now); kill -9 $(sed 's/.*"pid": \([0-9]*\).*/\1/' "$SKYSPAN_HOME"/forwarders/*/identity)
until [ "$(grep -c '"what":"up"' watched)" = 2 ]; do sleep 0.1; done
echo "repaired $killed $(now)"
console; mirror
asked=$(now); kill -INT $watch; wait $watch
echo "stopped $asked $(now)"
skyspan --json links tunnel > links
skyspan destroy tunnel --yes >/dev/null 2>destroy.log || { cat destroy.log >&2; exit 1; }
state > after
"""


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """What the commands printed, and how long things took."""
    shown = 'for f in before after watched links; do echo "== $f"; cat $f; done'
    script = f"cd $(mktemp -d); {SCRIPT.strip()}\n{shown}"
    argv = [sys.executable, "-m", "skyspan", "rehearse", "exec", "-f", "examples/tunnel", "--", "sh", "-c", script]
    env = {**os.environ, "PYTHON": sys.executable, "EXAMPLE": str(ROOT / "examples" / "tunnel")}
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    head, *parts = done.stdout.split("== ")
    found: dict[str, Any] = {name: text for name, _, text in (part.partition("\n") for part in parts)}
    for line in head.splitlines():
        name, *numbers = line.split()
        if len(numbers) == 2:
            found[name] = float(numbers[1]) - float(numbers[0])
            print(f"{name} after {found[name]:.1f} s")
        elif name == "processes":
            found[name] = int(numbers[0])
    return found


def test_the_forwards_outlive_the_command_in_one_process(told: dict[str, Any]) -> None:
    assert told["processes"] == 1


def test_a_silent_cut_is_noticed_and_both_directions_come_back(told: dict[str, Any]) -> None:
    assert 3 < told["noticed"] < 20, "keepalive of 2 s, of which 2 may stay without an answer"
    assert told["reconnected"] < 20
    assert told["rebound"] < 25, "though the gateway's sshd still held the port for the connection that was cut"


def test_a_killed_forwarder_is_named_and_started_again_by_watching(told: dict[str, Any]) -> None:
    lines = [json.loads(line) for line in told["watched"].splitlines()]
    cause = next(line for line in lines if line.get("what") == "cause")
    assert (cause["cause"], cause["host"]) == ("daemon-down", "here")
    repair = next(line for line in lines if line.get("what") == "repair")
    assert (repair["step"], repair["host"]) == ("reapply", "here")
    assert told["repaired"] < 20


def test_links_tell_what_is_forwarded(told: dict[str, Any]) -> None:
    [link] = json.loads(told["links"])["links"]
    assert link["uses"] == "ssh-tunnel"
    assert [end["host"] for end in link["ends"]] == ["here", "lab-gw"]
    assert "local console: 127.0.0.1:18080 -> 10.2.0.10:8080" in link["allow"]


def test_destroying_leaves_no_process_port_or_file(told: dict[str, Any]) -> None:
    assert told["before"] == told["after"]
