"""Backup, restore, prune, audit and the doctor's look at the store, from the command line."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.cli import Cli
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.integration

APP = """
stages:
  first:
    uses: command
    with: {run: 'echo "word=$WORD" >> "$SKYSPAN_OUTPUT"; echo hello', env: {WORD: "${{ secrets.token }}"}}
    outputs: {word: {type: string, sensitive: true}}
"""


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    made = Cli(tmp_path)
    yield made
    made.stop_all()


@pytest.fixture
def app(cli: Cli) -> Path:
    folder = cli.compose(APP)
    assert cli("secrets", "set", "token", stdin="canary-7f3a91").status == 0
    assert cli.up(folder).status == 0
    return folder


def finding(cli: Cli, what: str) -> list[dict[str, str]]:
    ran = cli.json("doctor")
    return [item for item in ran.document["findings"] if item["what"] == what]


def test_a_backup_restores_what_was_there(cli: Cli, app: Path, tmp_path: Path) -> None:
    file = tmp_path / "store.backup"
    ran = cli.json("backup", file)
    assert ran.status == 0
    assert ran.document["rows"] > 5
    assert str(cli.home / "key") in ran.err
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert cli("secrets", "set", "later", stdin="x").status == 0

    refused = cli("restore", file)
    assert refused.status == 2
    assert "not empty" in refused.err
    asked = cli("restore", file, "--replace")
    assert asked.status == 2
    assert "--yes" in asked.err

    assert cli.json("restore", file, "--replace", "--yes").document["flaws"] == []
    assert cli.json("secrets", "list").document["secrets"] == ["token"]
    assert cli.json("status", "app").document["status"] == "deployed"
    assert cli.plan(app).changes() == {"first": "none"}
    assert cli.json("destroy", "app", "--yes").status == 0


def test_a_sqlite_store_restores_into_postgresql(cli: Cli, app: Path, tmp_path: Path) -> None:
    file = tmp_path / "store.backup"
    assert cli("backup", file).status == 0
    with PostgresServer() as server:
        env = {"SKYSPAN_STORE": server.database()}
        assert cli.json("list", env=env).document["deployments"] == []
        assert cli.json("restore", file, env=env).document["flaws"] == []
        assert cli.json("outputs", "app", "--reveal", env=env).document["merged"] == {"word": "canary-7f3a91"}
        assert cli.plan(app, env=env).changes() == {"first": "none"}


def test_a_damaged_backup_changes_nothing(cli: Cli, app: Path, tmp_path: Path) -> None:
    file = tmp_path / "store.backup"
    assert cli("backup", file).status == 0
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    ran = cli("restore", file, "--replace", "--yes")
    assert ran.status == 1
    assert "no whole backup" in ran.err
    assert cli.json("list").document["deployments"][0]["status"] == "deployed"
    assert cli("backup", tmp_path / "nowhere" / "x").status == 2


def test_the_doctor_finds_what_somebody_changed(cli: Cli, app: Path) -> None:
    [found] = finding(cli, "integrity")
    assert found["verdict"] == "ok"
    with sqlite3.connect(cli.database) as raw:
        raw.execute("UPDATE stage_runs SET status = 'failed'")
        raw.execute("DELETE FROM events WHERE seq = 2 AND run_id IN (SELECT id FROM runs WHERE verb = 'never')")
        raw.execute("UPDATE secrets SET value_sealed = zeroblob(60)")
    raw.close()
    (cli.home / "keys" / "default").chmod(0o644)
    ran = cli.json("doctor")
    assert ran.status == 1
    bad = {item["what"]: item for item in ran.document["findings"] if item["verdict"] == "error"}
    assert {"projection", "sealed value", "keys"} <= set(bad)
    assert all(item["hint"] for item in bad.values())
    (cli.home / "keys" / "default").chmod(0o600)


def test_old_runs_are_removed_and_destroy_still_works(cli: Cli, app: Path) -> None:
    for _ in range(4):
        assert cli.up(app).status == 0
    assert len(cli.json("runs", "app").document["runs"]) == 5
    assert cli("prune", "app", "--yes").status == 2
    assert cli("prune", "app", "--keep-runs", "0", "--yes").status == 2
    assert cli("prune", "app", "--older-than", "soon", "--yes").status == 2
    assert cli("prune", "app", "--keep-runs", "2").status == 2
    assert cli.json("prune", "app", "--older-than", "1d", "--yes").document["pruned"][0]["runs"] == 0
    pruned = cli.json("prune", "--keep-runs", "2", "--yes").document["pruned"]
    assert [(item["deployment"], item["runs"]) for item in pruned] == [("app", 3)]
    assert len(cli.json("runs", "app").document["runs"]) == 2
    assert cli.json("destroy", "app", "--yes").status == 0


def test_reveals_are_remembered_and_looks_are_not(cli: Cli, app: Path, tmp_path: Path) -> None:
    assert cli("outputs", "app").status == 0
    assert cli.json("audit").document["accesses"] == []
    assert cli("outputs", "app", "--reveal").status == 0
    assert cli("backup", tmp_path / "store.backup").status == 0
    told = cli.json("audit").document["accesses"]
    assert [item["what"] for item in told] == ["backup taken", "outputs revealed"]
    assert told[1]["deployment"] == "app"
    assert "@" in told[1]["who"]
    assert "outputs revealed" in cli("audit", "app").out
    assert "canary" not in cli("audit").out
