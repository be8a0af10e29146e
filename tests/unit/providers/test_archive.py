"""The archive of files for a host."""

from __future__ import annotations

import io
import tarfile
import time

import pytest

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
