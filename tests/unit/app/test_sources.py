"""Digests of the files that stages read."""

from __future__ import annotations

from pathlib import Path

from skyspan.app.sources import FileDigests


async def digest(folder: Path, *sources: str) -> str:
    return await FileDigests().digest(folder, sources)


async def test_content_and_names_count_and_order_does_not(tmp_path: Path) -> None:
    for name, text in (("a", "1"), ("b", "2")):
        (tmp_path / name).write_text(text)
    first = await digest(tmp_path, "a", "b")
    assert await digest(tmp_path, "b", "a", "a") == first
    (tmp_path / "a").write_text("2")
    (tmp_path / "b").write_text("1")
    assert await digest(tmp_path, "a", "b") != first, "content that moved to another name is a change"


async def test_folders_count_whole_but_not_what_tools_leave_in_them(tmp_path: Path) -> None:
    (tmp_path / "cloud" / "modules").mkdir(parents=True)
    (tmp_path / "cloud" / "modules" / "main.tf").write_text("x")
    first = await digest(tmp_path, "cloud")
    for ignored in (".terraform", ".git", "__pycache__"):
        (tmp_path / "cloud" / ignored).mkdir()
        (tmp_path / "cloud" / ignored / "file").write_text("noise")
    assert await digest(tmp_path, "cloud") == first
    (tmp_path / "cloud" / "modules" / "more.tf").write_text("y")
    assert await digest(tmp_path, "cloud") != first


async def test_what_is_missing_counts_as_absent(tmp_path: Path) -> None:
    assert await digest(tmp_path, "none") == await digest(tmp_path)
    (tmp_path / "none").write_text("")
    assert await digest(tmp_path, "none") != await digest(tmp_path), "an empty file is not none"


async def test_the_folder_itself_may_move(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("same")
    assert await digest(tmp_path / "one", "file") == await digest(tmp_path / "two", "file")
