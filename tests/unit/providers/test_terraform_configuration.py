"""The configuration as a value, and the work tree that mirrors it."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from skyspan.model.error import Retry, SpecError, StageError
from skyspan.providers.terraform import configuration as subject
from skyspan.providers.terraform.configuration import Configuration, File, read_configuration
from skyspan.providers.terraform.worktree import WorkTree, held, install_digest
from skyspan.testing.provider_world import SteppingClock


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    top = tmp_path / "composition"
    (top / "cloud").mkdir(parents=True)
    return top


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def read(folder: Path, source: str = "cloud") -> Configuration:
    return read_configuration(folder, source, folder.parent / "work")


def test_state_installed_things_and_repositories_are_left_out(folder: Path) -> None:
    write(folder / "cloud/main.tf")
    write(folder / "cloud/sub/file.txt")
    for name in ("terraform.tfstate", "terraform.tfstate.backup", ".terraform/x", ".git/HEAD", "errored.tfstate"):
        write(folder / "cloud" / name)
    write(folder / "cloud/.terraform.lock.hcl", "locked")
    found = read(folder)
    assert sorted(found.files) == ["cloud/main.tf", "cloud/sub/file.txt"]
    assert found.lock == b"locked"


def test_modules_and_files_beside_the_source_come_along_and_nothing_else(folder: Path) -> None:
    write(folder / "cloud/main.tf", 'module "a" {\n  source = "../modules/a"\n}\n')
    write(
        folder / "modules/a/main.tf",
        'module "b" {\n  source = "../b"\n}\nlocals {\n  f = file("${path.module}/../../f.txt")\n}',
    )
    write(folder / "modules/b/main.tf", 'locals {\n  x = "../none"\n  y = "../"\n}')
    write(folder / "modules/unused/main.tf")
    write(folder / "f.txt")
    assert sorted(read(folder).files) == ["cloud/main.tf", "f.txt", "modules/a/main.tf", "modules/b/main.tf"]


def test_a_module_above_the_source_comes_along(folder: Path) -> None:
    write(folder / "cloud/examples/one/main.tf", 'module "a" {\n  source = "../../"\n}\n')
    write(folder / "cloud/main.tf")
    assert sorted(read(folder, "cloud/examples/one").files) == ["cloud/examples/one/main.tf", "cloud/main.tf"]


def test_the_work_folder_inside_of_the_source_is_left_out(folder: Path) -> None:
    write(folder / "main.tf")
    write(folder / ".skyspan/work/tree/main.tf")
    found = read_configuration(folder, ".", folder / ".skyspan" / "work")
    assert sorted(found.files) == ["main.tf"]


def test_links_inside_are_followed_and_links_out_are_refused(folder: Path) -> None:
    write(folder / "cloud/main.tf")
    write(folder / "shared/common.tf", "locals {}")
    (folder / "cloud/common.tf").symlink_to("../shared/common.tf")
    (folder / "cloud/loop").symlink_to(".")
    assert read(folder).files["cloud/common.tf"].data == b"locals {}"
    (folder / "cloud/out.tf").symlink_to("/etc/passwd")
    with pytest.raises(SpecError, match=r"cloud/out\.tf is a link that leads out"):
        read(folder)


def test_a_source_that_is_a_link_out_is_refused(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "elsewhere/main.tf")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SpecError, match="leads out"):
        read(folder, "linked")


def test_a_module_outside_of_the_composition_is_refused_with_a_way_out(folder: Path) -> None:
    write(folder / "cloud/main.tf", 'module "a" {\n  source = "../../a"\n}\n')
    with pytest.raises(SpecError) as caught:
        read(folder)
    assert "outside of the composition's folder: ../a" in caught.value.summary
    assert "move skyspan.yaml up" in caught.value.hint


def test_a_folder_that_is_too_big_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "SIZE_LIMIT", 100)
    write(folder / "cloud/main.tf", "#" * 101)
    with pytest.raises(SpecError, match=r"over 0 MB \(reached at cloud/main.tf\)"):
        read(folder)


def test_an_archive_gives_back_the_same_and_is_the_same_for_the_same() -> None:
    files = {"cloud/main.tf": File(b"x"), "cloud/run.sh": File(b"y", executable=True)}
    one = Configuration("cloud", files, b"lock")
    other = Configuration("cloud", dict(reversed(files.items())), b"lock")
    assert one.pack() == other.pack()
    assert one.digest == other.digest
    back = Configuration.unpack(one.pack())
    assert (back.root, dict(back.files), back.lock) == ("cloud", files, b"lock")
    assert back.digest == one.digest
    assert Configuration("cloud", files | {"cloud/main.tf": File(b"z")}).digest != one.digest


def test_an_archive_cannot_write_outside_of_the_tree(tmp_path: Path) -> None:
    evil = Configuration.unpack(Configuration(".", {"../../evil": File(b"x")}).pack())
    with pytest.raises(StageError, match="leads out of its folder"):
        WorkTree(tmp_path / "work").write(evil, {})
    assert not (tmp_path.parent / "evil").exists()


def test_the_tree_mirrors_changes_removals_and_turns_of_files_into_folders(tmp_path: Path) -> None:
    tree = WorkTree(tmp_path / "work")
    first = Configuration("cloud", {"cloud/main.tf": File(b"1"), "cloud/a": File(b"a"), "cloud/b/c": File(b"c")})
    tree.write(first, {})
    assert tree.holds(first, {})
    write(tree.tree / "cloud/own.tfstate", "the tool's own")
    second = Configuration("cloud", {"cloud/main.tf": File(b"2"), "cloud/a/x": File(b"x"), "cloud/b": File(b"b", True)})
    assert not tree.holds(second, {})
    tree.write(second, {})
    assert tree.holds(second, {})
    assert (tree.tree / "cloud/main.tf").read_text() == "2"
    assert (tree.tree / "cloud/a/x").read_text() == "x"
    assert os.access(tree.tree / "cloud/b", os.X_OK)
    assert (tree.tree / "cloud/own.tfstate").exists(), "what the mirror did not make, it does not remove"
    (tree.tree / "cloud/main.tf").write_text("edited by hand")
    assert not tree.holds(second, {})


def test_the_override_is_a_file_of_the_tree(tmp_path: Path) -> None:
    tree = WorkTree(tmp_path / "work")
    found = Configuration(".", {"main.tf": File(b"")})
    tree.write(found, {"locals": {"a": 1}})
    path = tree.tree / "skyspan_override.tf.json"
    assert json.loads(path.read_text()) == {"locals": {"a": 1}}
    assert path.stat().st_mode & 0o777 == 0o600
    tree.write(found, {})
    assert not path.exists()


def test_what_is_installed_is_remembered_beside_it() -> None:
    base = Configuration(".", {"main.tf": File(b'resource "aws_vpc" "a" {}')})
    same = Configuration(".", {"main.tf": File(b'resource "aws_vpc" "a" {\n  cidr_block = "10.0.0.0/8"\n}')})
    assert install_digest(base, {}, "tofu 1", "rc") == install_digest(same, {}, "tofu 1", "rc")
    locked = Configuration(".", base.files, b"lock")
    others = [
        install_digest(locked, {}, "tofu 1", "rc"),
        install_digest(base, {"terraform": {}}, "tofu 1", "rc"),
        install_digest(base, {}, "tofu 2", "rc"),
        install_digest(base, {}, "tofu 1", "other"),
    ]
    assert len({install_digest(base, {}, "tofu 1", "rc"), *others}) == 5


def test_a_private_folder_vanishes_and_what_killed_verbs_left_is_removed(tmp_path: Path) -> None:
    tree = WorkTree(tmp_path / "work")
    left = write(tree.work / "scratch/old/variables.tfvars.json", "secret").parent
    with tree.scratch() as one:
        assert not left.exists()
        assert one.stat().st_mode & 0o777 == 0o700
        with tree.scratch() as two:
            assert one.exists(), "what is in use is not removed"
            assert one != two
    assert list((tree.work / "scratch").iterdir()) == []


async def test_readers_share_and_a_writer_waits_for_them_then_gives_up(tmp_path: Path) -> None:
    clock = SteppingClock()
    lock = tmp_path / "lock"
    async with held(lock, clock, exclusive=False, what="it"), held(lock, clock, exclusive=False, what="it"):
        with pytest.raises(StageError) as caught:
            async with held(lock, clock, exclusive=True, what="it"):
                pass
        assert caught.value.retry is Retry.LATER
        assert sum(clock.slept) >= 60
    async with held(lock, clock, exclusive=True, what="it"):
        waiting = asyncio.ensure_future(_take(lock, clock))
        await asyncio.sleep(0)
    await waiting


async def _take(lock: Path, clock: SteppingClock) -> None:
    async with held(lock, clock, exclusive=True, what="it"):
        pass
