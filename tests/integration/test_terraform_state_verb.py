"""`skyspan state` on a real stage: look, go back, push, unlock."""

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
PATH = f"{ROOT / '.tools' / 'bin'}:{os.environ['PATH']}"

COMPOSITION = """skyspan: 1
name: shop
stages:
  cloud:
    uses: terraform
    with: {source: ./cloud, tool: tofu, variables: {size: %d}}
"""


def skyspan(folder: Path, *arguments: str, stdin: str = "", exits: int = 0) -> str:
    environment = {"PATH": PATH, "HOME": str(folder), "PYTHONPATH": str(ROOT / "src")}
    environment["SKYSPAN_HOME"] = str(folder / "home")
    command = [sys.executable, "-m", "skyspan", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, input=stdin, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == exits, done.stdout + done.stderr
    return done.stdout if exits == 0 else done.stderr


def test_a_stages_state_can_be_looked_into_and_taken_back(tmp_path: Path) -> None:
    (tmp_path / "cloud").mkdir()
    text = 'variable "size" {\n  type = number\n}\nresource "terraform_data" "a" {\n  input = var.size\n}\n'
    (tmp_path / "cloud" / "main.tf").write_text(text)
    for size in (1, 2):
        (tmp_path / "skyspan.yaml").write_text(COMPOSITION % size)
        skyspan(tmp_path, "up", "--yes")

    def state(*arguments: str, **more: Any) -> dict[str, Any]:
        said = skyspan(tmp_path, "state", *arguments, "--stage", "cloud", "--json", **more)
        document: dict[str, Any] = json.loads(said)
        return document

    listed = state("list")
    assert listed["resources"] == [{"address": "terraform_data.a", "type": "terraform_data", "tainted": False}]
    assert (listed["deployment"], listed["stage"], listed["in_doubt"]) == ("shop", "cloud", [])
    (entry,) = state("history")["history"]
    assert entry["event"] == "replaced"
    old = json.loads(skyspan(tmp_path, "state", "pull", "--stage", "cloud", "--version", str(entry["serial"])))
    assert old["resources"][0]["instances"][0]["attributes"]["input"]["value"] == 1
    again = state("rollback", "--to", str(entry["serial"]), "--yes")
    assert again["serial"] == listed["serial"] + 1
    refused = skyspan(tmp_path, "state", "push", "--stage", "cloud", "--yes", stdin=json.dumps(old), exits=1)
    assert "is not newer" in refused
    assert "--yes" in skyspan(tmp_path, "state", "push", "--stage", "cloud", stdin="{}", exits=2)
    newer = old | {"serial": again["serial"] + 5}
    assert state("push", "--yes", stdin=json.dumps(newer))["serial"] == newer["serial"]
    assert state("unlock", "--yes")["unlocked"] is None
    assert "has no stage" in skyspan(tmp_path, "state", "list", "--stage", "lab", exits=1)
    assert "not in doubt" in skyspan(
        tmp_path, "state", "settle", "terraform_data.a", "--stage", "cloud", "--absent", exits=1
    )
    skyspan(tmp_path, "up", "--yes")
    assert state("list")["serial"] > newer["serial"]
