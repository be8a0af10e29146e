"""A state home that is full, read-only or damaged: told as such, nothing lost, and the next run goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.cli import Cli, Ran, refuse_accidents

pytestmark = pytest.mark.integration

ROOM = "6m"


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    made = Cli(tmp_path)
    yield made
    made.stop_all()


def in_a_mount_namespace(cli: Cli, script: str) -> Ran:
    """`script` as root where its mounts are its own; `$SKY` is the command line."""
    assert os.geteuid() == 0, "mounting needs root"
    cli.home.mkdir(exist_ok=True)
    done = subprocess.run(
        ["unshare", "-m", "sh", "-eu", "-c", "mount --make-rprivate /; " + script],
        capture_output=True,
        text=True,
        env=cli.env | {"SKY": " ".join(cli.argv()), "PLACE": str(cli.home)},
        cwd=cli.folder,
        timeout=120,
    )
    ran = Ran(done.returncode, done.stdout, done.stderr)
    refuse_accidents(ran)
    return ran


APP = """
stages:
  one: {{uses: command, with: {{run: "touch {0}/one", creates: "{0}/one", destroy: "rm -f {0}/one"}}}}
  talk: {{uses: command, needs: [one], with: {{run: "{1}"}}}}
  last: {{uses: command, needs: [talk], with: {{run: "touch {0}/last"}}}}
"""


CHAIN = "".join(
    f"  s{number}: {{uses: command, needs: [{f's{number - 1}' if number else 'last'}], with: {{run: 'true'}}}}\n"
    for number in range(40)
)


@pytest.mark.parametrize(
    ("fill", "more", "told"),
    [
        (
            "dd if=/dev/zero of=$PLACE/filler bs=4k 2>/dev/null || true",
            CHAIN,
            "up of app was stopped, because the store",
        ),
        ("head -c 30000000 /dev/urandom | base64 -w 200", "", ""),
    ],
    ids=["by another file", "by the log itself"],
)
def test_a_disk_that_fills_up_during_a_run_stops_it_in_order_and_loses_nothing(
    cli: Cli, tmp_path: Path, fill: str, more: str, told: str
) -> None:
    talk = f"if [ ! -e {tmp_path}/quiet ]; then touch {tmp_path}/began; {fill}; fi"
    app = cli.compose(APP.format(tmp_path, talk) + more)
    ran = in_a_mount_namespace(
        cli,
        f"""
mount -t tmpfs -o size={ROOM} full $PLACE
status=0; $SKY up -f {app} --yes >out 2>err || status=$?
echo "first: $status"; cat out err
$SKY --json status app >status.json || true
rm -f $PLACE/filler; touch {tmp_path}/quiet
mount -o remount,size=200m $PLACE
$SKY --json check app >check.json || true
$SKY --json up -f {app} --yes >again.json
$SKY --json destroy app --yes >destroyed.json
""",
    )
    assert ran.status == 0, ran.out + ran.err
    assert "first: 1" in ran.out
    assert "no space is left on the disk of the" in ran.out, ran.out
    assert "Free some space" in ran.out
    assert told in ran.out
    assert (tmp_path / "began").exists()
    again = Ran(0, (tmp_path / "again.json").read_text(), "")
    assert again.stages()["one"] == "unchanged", "what was done before the disk was full is remembered"
    assert again.stages()["last"] in ("succeeded", "unchanged")
    assert set(Ran(0, (tmp_path / "destroyed.json").read_text(), "").stages().values()) == {"destroyed"}
    assert not (tmp_path / "one").exists()


def test_a_disk_that_is_full_from_the_start_is_told_before_anything_is_touched(cli: Cli, tmp_path: Path) -> None:
    app = cli.compose(APP.format(tmp_path, "true"))
    ran = in_a_mount_namespace(
        cli,
        f"""
mount -t tmpfs -o size=64k full $PLACE
dd if=/dev/zero of=$PLACE/filler bs=4k 2>/dev/null || true
for verb in "up -f {app} --yes" "plan -f {app}" "list"; do
    status=0; $SKY $verb >out 2>err || status=$?
    echo "$verb: $status"; cat out err
done
""",
    )
    assert ran.status == 0, ran.err
    assert not (tmp_path / "one").exists()
    for verb in (f"up -f {app} --yes", f"plan -f {app}"):
        assert f"{verb}: 1" in ran.out
    assert "No space left" in ran.out or "no space is left" in ran.out, ran.out
    assert "hint:" in ran.out


def test_a_read_only_home_is_told_with_what_to_do(cli: Cli, tmp_path: Path) -> None:
    app = cli.compose(APP.format(tmp_path, "true"))
    cli.up(app)
    ran = in_a_mount_namespace(
        cli,
        f"""
mount --bind $PLACE $PLACE
mount -o remount,ro,bind $PLACE
for verb in "up -f {app} --yes" "plan -f {app}" "destroy app --yes" "status app" "list"; do
    status=0; $SKY $verb >out 2>err || status=$?
    echo "$verb: $status"; cat out err
done
status=0; $SKY doctor >out 2>err || status=$?
echo "doctor: $status"; cat out
""",
    )
    assert ran.status == 0, ran.err
    for verb in (f"up -f {app} --yes", f"plan -f {app}", "destroy app --yes", "doctor"):
        assert f"{verb}: 1\n" in ran.out, ran.out
    assert "--home" in ran.out
    assert (tmp_path / "one").exists()
    assert set(cli.up(app).stages().values()) == {"unchanged"}


def test_a_home_that_cannot_be_made_is_told(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    app = cli.compose(APP.format(tmp_path, "true"))
    for arguments in (("up", "-f", app, "--yes"), ("list",)):
        ran = cli("--home", tmp_path / "file" / "below", *arguments)
        assert ran.status == 1, ran.err
        assert "error:" in ran.err
        assert "hint:" in ran.err


@pytest.mark.parametrize(
    "damage",
    [
        b"this is no database at all, but long enough to be taken for one" * 100,
        b"SQLite format 3\x00 and then something else",
        "truncated",
        "scribbled",
    ],
    ids=["other file", "cut off", "truncated", "scribbled"],
)
def test_a_corrupt_database_is_told_as_such_and_left_alone(cli: Cli, tmp_path: Path, damage: bytes | str) -> None:
    app = cli.compose(APP.format(tmp_path, "true"))
    cli.up(app)
    content = cli.database.read_bytes()
    if damage == "truncated":
        cli.database.write_bytes(content[: len(content) // 2])
    elif damage == "scribbled":
        cli.database.write_bytes(content[:4096] + os.urandom(len(content) - 4096))
    elif isinstance(damage, bytes):
        cli.database.write_bytes(damage)
    for name in ("-wal", "-shm"):
        Path(f"{cli.database}{name}").unlink(missing_ok=True)
    before = cli.database.read_bytes()
    for arguments in (("up", "-f", app, "--yes"), ("status", "app"), ("list",)):
        ran = cli.json(*arguments)
        assert ran.status == 1, arguments
        assert ran.document["error"]["kind"] == "StoreCorruptError", ran.err
        assert str(cli.database) in ran.err
        assert "backup" in ran.err
    assert cli.database.read_bytes() == before, "what may still be rescued is not written to"


def test_a_lost_key_is_told_before_anything_is_touched(cli: Cli, tmp_path: Path) -> None:
    app = cli.compose(APP.format(tmp_path, "true"))
    cli("secrets", "set", "token", stdin="a secret value")
    cli.up(app)
    keys = [path for path in cli.home.iterdir() if path.is_file() and not path.name.startswith("skyspan.db")]
    assert keys, "the key is a file of the home"
    for key in keys:
        shutil.move(key, tmp_path / key.name)
    ran = cli.json("destroy", "app", "--yes")
    assert ran.status == 1, ran.out
    assert ran.document["error"]["kind"] == "SealError", ran.err
    assert "hint:" in ran.err
    assert (tmp_path / "one").exists()
    for key in keys:
        shutil.move(tmp_path / key.name, key)
    assert cli.json("destroy", "app", "--yes").status == 0


def test_a_private_home_is_not_readable_by_others(cli: Cli, tmp_path: Path) -> None:
    cli.up(cli.compose(APP.format(tmp_path, "true")))
    cli("secrets", "set", "token", stdin="a secret value")
    open_to_others = [path for path in cli.home.rglob("*") if path.stat().st_mode & 0o077 and path.is_file()]
    assert not open_to_others
    assert cli.home.stat().st_mode & 0o077 == 0
