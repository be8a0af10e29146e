"""A deployment leaves one machine in an age file and is recorded on another."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pyrage
import pytest
from tests.support.cli import Cli

pytestmark = pytest.mark.integration

APP = """
inputs: {greeting: {type: string, default: hello}}
stages:
  first:
    uses: command
    with: {run: 'echo "word=$WORD" >> "$SKYSPAN_OUTPUT"', env: {WORD: "${{ secrets.token }}"}}
    outputs: {word: {type: string, sensitive: true}}
  second: {uses: command, needs: [first], with: {run: "echo ${{ inputs.greeting }}"}}
"""


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[tuple[Cli, Cli]]:
    """Two homes that share nothing."""
    made = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        made.append(Cli(tmp_path / name))
    here, there = made
    yield here, there
    for cli in made:
        cli.stop_all()


@pytest.fixture
def identity(tmp_path: Path) -> tuple[str, Path]:
    made = pyrage.x25519.Identity.generate()
    path = tmp_path / "identity"
    path.write_text(f"{made}\n")
    return str(made.to_public()), path


def deployed(cli: Cli) -> Path:
    folder = cli.compose(APP)
    for name in ("token", "unread"):
        assert cli("secrets", "set", name, stdin=f"canary-{name}").status == 0
    assert cli.up(folder).status == 0
    return folder


def test_a_deployment_moves_to_another_machine(
    machines: tuple[Cli, Cli], identity: tuple[str, Path], tmp_path: Path
) -> None:
    here, there = machines
    folder = deployed(here)
    file = tmp_path / "app.age"
    exported = here.json("export", "app", file, "--to", identity[0])
    assert exported.status == 0
    assert exported.document["secrets"] == ["token"]
    assert "still recorded here" in exported.err
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert b"canary" not in file.read_bytes()
    assert [item["what"] for item in here.json("audit", "app").document["accesses"]] == ["deployment exported"]

    closed = there("import", file)
    assert closed.status == 1
    assert "identity" in closed.err
    imported = there.json("import", file, "--identity", identity[1])
    assert imported.status == 0
    assert imported.document["stages"] == ["first", "second"]
    assert there.json("list").document["deployments"][0]["status"] == "deployed"
    assert there.json("outputs", "app", "--reveal").document["merged"] == {"word": "canary-token"}
    assert there.json("secrets", "list").document["secrets"] == ["token"]
    assert [item["verdict"] for item in there.json("doctor").document["findings"] if item["what"] == "integrity"] == [
        "ok"
    ]
    shutil.rmtree(folder)
    assert there.json("destroy", "app", "--yes").status == 0


def test_what_is_there_already_is_replaced_only_when_told_to(
    machines: tuple[Cli, Cli], identity: tuple[str, Path], tmp_path: Path
) -> None:
    here, there = machines
    deployed(here)
    file = tmp_path / "app.age"
    (tmp_path / "recipients").write_text(f"# whom I trust\n{identity[0]}\n")
    assert here("export", "app", file, "--to", tmp_path / "recipients").status == 0
    assert there("secrets", "set", "token", stdin="another").status == 0
    refused = there("import", file, "--identity", identity[1])
    assert refused.status == 2
    assert "secret token" in refused.err
    assert there.json("list").document["deployments"] == []
    assert there("import", file, "--identity", identity[1], "--replace").status == 2
    assert there("import", file, "--identity", identity[1], "--replace", "--yes").status == 0
    again = there("import", file, "--identity", identity[1])
    assert again.status == 2
    assert "deployment app" in again.err
    assert there.json("import", file, "--identity", identity[1], "--as", "twin").document["deployment"] == "twin"
    assert len(there.json("list").document["deployments"]) == 2


def test_a_passphrase_locks_it_too(machines: tuple[Cli, Cli], tmp_path: Path) -> None:
    here, there = machines
    deployed(here)
    file = tmp_path / "app.age"
    assert here("export", "app", file).status == 2
    assert here("export", "app", file, "--passphrase", "--to", "age1x", stdin="x").status == 2
    assert here("export", "app", file, "--to", "age1nonsense").status == 2
    assert here("export", "nothing", file, "--passphrase", stdin="correct horse\n").status == 1
    assert not file.exists()
    assert here("export", "app", file, "--passphrase", stdin="correct horse\n").status == 0
    wrong = there("import", file, stdin="wrong\n")
    assert wrong.status == 1
    assert "cannot be opened" in wrong.err
    assert there("import", file, stdin="correct horse\n").status == 0
    assert there.json("outputs", "app", "--reveal").document["merged"] == {"word": "canary-token"}
