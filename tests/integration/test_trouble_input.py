"""Compositions that are wrong, as a person meets them: where, what, and what to do; and nothing is touched."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from tests.support.cli import Cli, Ran

pytestmark = pytest.mark.integration

HEAD = "skyspan: 1\nname: app\n"
ONE = "  one: {uses: command, with: {run: 'true'}}\n"


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


def refused(cli: Cli, content: str | bytes, *, status: int = 2) -> Ran:
    """`up` of a composition with that content, which must be refused before anything is touched."""
    folder = cli.folder / "app"
    folder.mkdir(exist_ok=True)
    data = content if isinstance(content, bytes) else content.encode()
    (folder / "skyspan.yaml").write_bytes(data)
    ran = cli("up", "-f", folder, "--yes")
    assert ran.status == status, ran.err
    assert "nothing was touched" in ran.err
    return ran


@pytest.mark.parametrize(
    ("stages", "line", "said"),
    [
        ("stages:\n  one: {uses: command, wiht: {run: 'true'}}\n", 4, ["wiht", "with"]),
        ("stages:\n  one: {uses: command, with: {rum: 'true'}}\n", 4, ["rum", "run"]),
        ("stages:\n  one: {uses: command, with: {run: {a: b}}}\n", 4, ["run"]),
        ("stages:\n  one: {uses: command, timeout: soon, with: {run: 'true'}}\n", 4, ["soon", "30s"]),
        (f"stages:\n{ONE}{ONE}", 5, ["one", "4"]),
        (
            "stages:\n"
            "  a: {uses: command, needs: [b], with: {run: 'true'}}\n"
            "  b: {uses: command, needs: [a], with: {run: 'true'}}\n",
            4,
            ["a", "b", "→"],
        ),
        (
            "stages:\n" + ONE + "  two: {uses: command, with: {run: '${{ stages.oen.outputs.x }}'}}\n",
            5,
            ["oen", "one"],
        ),
        (
            "stages:\n  one: {uses: command, with: {run: 'true'}, outputs: {word: {type: string}}}\n"
            "  two: {uses: command, with: {run: '${{ stages.one.outputs.wrod }}'}}\n",
            5,
            ["wrod", "word"],
        ),
        (
            "inputs: {region: {type: string}}\nstages:\n"
            "  a: {uses: command, with: {run: '${{ inputs.regoin }}'}}\n",
            5,
            ["regoin", "region"],
        ),
        ("stages:\n  a: {uses: command, with: {run: 'true', host: nowhere}}\n", 4, ["nowhere"]),
        ("stages:\n  a: {uses: command, with: {run: 'echo ${{ inputs.x'}}\n", 4, ["}}"]),
    ],
    ids=[
        "unknown key", "unknown setting", "wrong type", "wrong duration", "duplicate stage", "cycle", "missing stage",
        "missing output", "missing input", "missing host", "unterminated expression",
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place_and_the_nearest_right_thing(
    cli: Cli, stages: str, line: int, said: list[str]
) -> None:
    ran = refused(cli, HEAD + stages)
    places = re.findall(r"^app/skyspan\.yaml:(\d+):\d+: error: (.*)$", ran.err, re.MULTILINE)
    assert line in [int(place[0]) for place in places], ran.err
    assert "^" in ran.err, "a caret shows where"
    for word in said:
        assert word in ran.err, ran.err


def test_all_mistakes_are_told_at_once(cli: Cli) -> None:
    ran = refused(cli, HEAD + "colour: red\nstages:\n  a: {uses: comand}\n  b: {uses: command, needs: [c], with: {}}\n")
    assert len(re.findall(r"^app/skyspan\.yaml:\d+:\d+: error:", ran.err, re.MULTILINE)) >= 4


def test_a_yaml_bomb_is_refused_quickly(cli: Cli) -> None:
    levels = "".join(f"x{level}: &x{level} [{', '.join([f'*x{level - 1}'] * 9)}]\n" for level in range(1, 12))
    began = time.monotonic()
    ran = refused(cli, f"{HEAD}x0: &x0 [lol]\n{levels}stages:\n{ONE}")
    assert time.monotonic() - began < 10
    assert "alias" in ran.err


def test_a_file_of_ten_megabytes_is_refused_with_the_limit(cli: Cli) -> None:
    ran = refused(cli, HEAD + "stages:\n" + ONE + "# " + "x" * 10_000_000 + "\n")
    assert "the file is too large: 9.5 MiB, the limit is 4 MiB" in ran.err


def test_windows_line_ends_are_fine(cli: Cli) -> None:
    folder = cli.compose("")
    (folder / "skyspan.yaml").write_bytes((HEAD + "stages:\n" + ONE).replace("\n", "\r\n").encode())
    assert cli.up(folder).stages() == {"one": "succeeded"}
    ran = refused(cli, (HEAD + "stages:\n  one: {uses: comand}\n").replace("\n", "\r\n"))
    assert "app/skyspan.yaml:4:15: error:" in ran.err
    assert "\r" not in ran.err


def test_a_file_that_is_not_utf8_is_told_with_the_byte(cli: Cli) -> None:
    ran = refused(cli, HEAD.encode() + b"description: caf\xe9\nstages:\n" + ONE.encode())
    assert "app/skyspan.yaml:3:17: error: the file is not UTF-8: byte 0xe9" in ran.err
    assert "save it as UTF-8" in ran.err


@pytest.mark.parametrize(
    "content", ["", "\n", "- a\n", "just words\n", "a: [b\n", "a:\n\t- b\n", "a: !!python/none x\n"]
)
def test_what_is_no_composition_is_told_so(cli: Cli, content: str) -> None:
    assert "error:" in refused(cli, content).err


def test_a_secret_that_is_not_set_is_named_with_how_to_set_it(cli: Cli) -> None:
    content = HEAD + "stages:\n  a: {uses: command, with: {run: 'true', env: {A: '${{ secrets.api-token }}'}}}\n"
    ran = refused(cli, content)
    assert "app/skyspan.yaml:4:" in ran.err
    assert "skyspan secrets set api-token" in ran.err
    assert cli("secrets", "set", "api-token", stdin="the value\n").status == 0
    assert cli.up(cli.folder / "app").status == 0


def test_a_missing_input_is_named_with_how_to_give_it(cli: Cli) -> None:
    app = cli.compose("inputs: {region: {type: string}, size: {type: number}}\n" + "stages:\n" + ONE)
    ran = cli("up", "-f", app, "--yes", "--input", "size=large")
    assert ran.status == 2
    assert "region" in ran.err
    assert "--input" in ran.err
    assert "size" in ran.err
    assert cli("up", "-f", app, "--yes", "--input", "regoin=x", "--input", "size=1").status == 2


def test_a_missing_source_directory_is_found_before_anything_is_touched(cli: Cli, tmp_path: Path) -> None:
    stages = f"stages:\n  cloud: {{uses: terraform, with: {{source: ./clodu}}}}\n  side: {{uses: command, with: {{run: 'touch {tmp_path}/touched'}}}}\n"  # noqa: E501
    ran = refused(cli, HEAD + stages, status=1)
    assert "clodu" in ran.err
    assert "app/skyspan.yaml:4:" in ran.err
    assert not (tmp_path / "touched").exists()


def test_a_missing_playbook_is_found_before_anything_is_touched(cli: Cli) -> None:
    stages = "hosts: {box: {address: 127.0.0.1}}\nstages:\n  play: {uses: ansible, with: {playbook: site.yml, hosts: [box]}}\n"  # noqa: E501
    assert "site.yml" in refused(cli, HEAD + stages, status=1).err
