"""Key sources and the replacing of keys from the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.cli import Cli

pytestmark = pytest.mark.integration


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    made = Cli(tmp_path)
    yield made
    made.stop_all()


APP = """
stages:
  first:
    uses: command
    with: {run: 'echo "word=$WORD" >> "$SKYSPAN_OUTPUT"', env: {WORD: "${{ secrets.token }}"}}
    outputs: {word: {type: string, sensitive: true}}
"""


def opens(cli: Cli, env: dict[str, str]) -> bool:
    ran = cli.json("outputs", "app", "--reveal", env=env)
    return ran.status == 0 and ran.document["merged"] == {"word": "canary-7f3a91"}


def prepared(cli: Cli, env: dict[str, str]) -> Path:
    folder = cli.compose(APP)
    assert cli("secrets", "set", "token", stdin="canary-7f3a91", env=env).status == 0
    assert cli.up(folder, env=env).status == 0
    return folder


def test_both_keys_are_replaced_and_nothing_has_to_be_done_again(cli: Cli) -> None:
    folder = prepared(cli, {})
    before = [(cli.home / name).read_bytes() for name in ("key", "keys/default")]
    ran = cli.json("secrets", "rotate")
    assert [item["keys"] for item in ran.document["rotated"]] == ["master", "data"]
    assert ran.document["rotated"][1]["resealed"] >= 5
    after = [(cli.home / name).read_bytes() for name in ("key", "keys/default")]
    assert before[0] != after[0]
    assert before[1] != after[1]
    told = [access["what"] for access in cli.json("audit").document["accesses"]]
    assert told == ["data key replaced", "master key replaced"]
    assert opens(cli, {})
    assert cli.plan(folder).changes() == {"first": "none"}
    (cli.home / "key").write_bytes(before[0])
    broken = cli("outputs", "app")
    assert broken.status == 1
    assert "another master key" in broken.err


def test_a_home_is_locked_with_a_passphrase_later_and_the_old_key_file_is_gone(cli: Cli) -> None:
    prepared(cli, {})
    assert cli("secrets", "rotate", "--new-passphrase", stdin="correct horse\n").status == 0
    assert not (cli.home / "key").exists()
    assert opens(cli, {"SKYSPAN_PASSPHRASE": "correct horse"})
    missing = cli("outputs", "app")
    assert missing.status == 1
    assert "SKYSPAN_PASSPHRASE" in missing.err
    wrong = cli("secrets", "set", "more", stdin="x", env={"SKYSPAN_PASSPHRASE": "wrong"})
    assert wrong.status == 1
    assert "passphrase does not open" in wrong.err
    assert cli.json("secrets", "list", env={"SKYSPAN_PASSPHRASE": "correct horse"}).document["secrets"] == ["token"]
    # Without a new passphrase there is no new master key, but the data key can be replaced.
    locked = {"SKYSPAN_PASSPHRASE": "correct horse"}
    assert cli("secrets", "rotate", env=locked).status == 2
    assert cli("secrets", "rotate", "--data", env=locked).status == 0
    assert cli("secrets", "rotate", "--master", "--new-passphrase", stdin="battery", env=locked).status == 0
    assert opens(cli, {"SKYSPAN_PASSPHRASE": "battery"})
    assert not opens_at_all(cli, locked)


def opens_at_all(cli: Cli, env: dict[str, str]) -> bool:
    return cli("outputs", "app", env=env).status == 0


def test_a_passphrase_comes_from_a_credential_or_a_command(cli: Cli, tmp_path: Path) -> None:
    prepared(cli, {"SKYSPAN_PASSPHRASE": "correct horse"})
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "skyspan-passphrase").write_text("correct horse\n")
    assert opens(cli, {"CREDENTIALS_DIRECTORY": str(credentials)})
    script = tmp_path / "my command"
    script.write_text("#!/bin/sh\necho 'correct horse'\n")
    script.chmod(0o700)
    assert opens(cli, {"SKYSPAN_PASSPHRASE_COMMAND": f"'{script}' --for skyspan"})
    script.write_text("#!/bin/sh\necho correct horse; echo the vault is closed >&2; exit 3\n")
    failed = cli("outputs", "app", env={"SKYSPAN_PASSPHRASE_COMMAND": f"'{script}'"})
    assert failed.status == 1
    assert "the vault is closed" in failed.err
    assert "correct horse" not in failed.err
    (credentials / "skyspan-passphrase").write_text("")
    empty = cli("outputs", "app", env={"CREDENTIALS_DIRECTORY": str(credentials)})
    assert empty.status == 1
    assert "empty passphrase" in empty.err
    absent = cli("outputs", "app", env={"SKYSPAN_PASSPHRASE_COMMAND": "/nowhere/at-all"})
    assert absent.status == 1
    assert "nowhere" in absent.err
