"""The archive of files for a host."""

from __future__ import annotations

import io
import os
import tarfile
import time
from pathlib import Path

import pytest

from skyspan.providers import trees
from skyspan.providers.archive import Entry, archived, compressed

FILES = (Entry("a/b.conf", b"one"), Entry("run.sh", b"two", 0o755, 7, 8))


def test_an_archive_holds_each_file_with_its_permissions_and_owner() -> None:
    with tarfile.open(fileobj=io.BytesIO(archived(FILES))) as archive:
        found = [(item.name, item.mode, item.uid, item.gid) for item in archive]
        content = [archive.extractfile(name) for name in ("a/b.conf", "run.sh")]
        assert [file.read() for file in content if file is not None] == [b"one", b"two"]
    assert found == [("a/b.conf", 0o644, 0, 0), ("run.sh", 0o755, 7, 8)]


def test_equal_files_make_equal_archives_whatever_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    early = compressed(archived(FILES))
    later = time.time() + 100_000
    monkeypatch.setattr(time, "time", lambda: later)
    assert compressed(archived(FILES)) == early


def test_a_folder_travels_with_its_links_permissions_and_folders_whoever_owns_it(tmp_path: Path) -> None:
    (tmp_path / "top/in").mkdir(parents=True)
    (tmp_path / "top/in/run.sh").write_text("run")
    (tmp_path / "top/in/run.sh").chmod(0o750)
    (tmp_path / "top/in").chmod(0o711)
    (tmp_path / "top/link").symlink_to("in")
    os.utime(tmp_path / "top/in/run.sh", (1, 1))
    names = [name for name, _ in trees.walk(tmp_path, "top")]
    assert names == ["top/link", "top/in/run.sh"]
    with tarfile.open(fileobj=io.BytesIO(archived(trees.entries(tmp_path, names)))) as archive:
        found = {item.name: (item.type, item.mode & 0o777, item.linkname, item.uid, item.mtime) for item in archive}
    assert list(found) == ["top", "top/in", "top/in/run.sh", "top/link"]
    assert found["top/in"][:2] == (tarfile.DIRTYPE, 0o711)
    assert found["top/in/run.sh"] == (tarfile.REGTYPE, 0o750, "", 0, 0)
    assert found["top/link"][0::2] == (tarfile.SYMTYPE, "in", 0)


def test_a_folder_is_another_one_when_a_name_a_permission_a_link_or_a_content_is(tmp_path: Path) -> None:
    def now() -> str:
        return trees.content(trees.walk(tmp_path, "."))

    assert now() == ""
    seen = {now()}
    (tmp_path / "a").write_text("x")
    seen.add(now())
    (tmp_path / "a").chmod(0o755)
    seen.add(now())
    (tmp_path / "a").rename(tmp_path / "b")
    seen.add(now())
    (tmp_path / "l").symlink_to("b")
    seen.add(now())
    (tmp_path / "b").write_text("y")
    seen.add(now())
    assert len(seen) == 6
