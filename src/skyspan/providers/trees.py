"""Folders of a composition as they travel: what is in them, told apart by content, as entries of an archive."""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath

from skyspan.providers.archive import Entry, Shape


def walk(folder: Path, path: str, left_out: Callable[[str], bool] | None = None) -> Iterator[tuple[str, Path]]:
    """Files and links below a path, in a fixed order, by name relative to `folder`; nothing where it does not exist.

    `left_out` is asked for every name relative to `path`; a folder that it names is still looked into, as it may name
    others in it that stay.
    """
    start = folder / path
    if start.is_file() or start.is_symlink():
        yield posixpath.normpath(path), start
    elif start.is_dir():
        for parent, folders, files in os.walk(start):
            folders.sort()
            links = [name for name in folders if (Path(parent) / name).is_symlink()]
            for name in sorted([*files, *links]):
                file = Path(parent) / name
                if left_out is not None and left_out(file.relative_to(start).as_posix()):
                    continue
                if file.is_symlink() or file.is_file():
                    yield posixpath.normpath(file.relative_to(folder).as_posix()), file


def content(found: Iterable[tuple[str, Path]]) -> str:
    """A digest of what `walk` found: names, permissions, contents; empty where there is nothing."""
    total = hashlib.blake2b(digest_size=32)
    anything = False
    for name, file in found:
        anything = True
        total.update(f"{name}\0{file.lstat().st_mode & 0o777:o}\0".encode())
        if file.is_symlink():
            total.update(hashlib.blake2b(os.fsencode(file.readlink())).digest())
            continue
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "blake2b").digest())
    return total.hexdigest() if anything else ""


def entries(folder: Path, names: Iterable[str]) -> Iterator[Entry]:
    """Files and links by their names relative to `folder`, with the folders above them, all of them root's."""
    wanted = set(names)
    parents = {str(parent) for name in wanted for parent in PurePosixPath(name).parents} - {"."}
    for name in sorted(parents | wanted):
        file = folder / name
        mode = file.lstat().st_mode & 0o7777
        if file.is_symlink():
            yield Entry(name, os.fsencode(file.readlink()), mode, shape=Shape.LINK)
        elif file.is_dir():
            yield Entry(name, mode=mode, shape=Shape.FOLDER)
        else:
            yield Entry(name, file.read_bytes(), mode)
