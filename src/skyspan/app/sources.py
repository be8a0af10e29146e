"""Digests of the files that stages read: part of what is applied, so part of what is compared."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from pathlib import Path

_IGNORED = frozenset({".git", ".terraform", "__pycache__", ".DS_Store"})


class FileDigests:
    """Implements `attempts.contexts.SourceDigests` by reading the files, in a thread."""

    async def digest(self, folder: Path, sources: tuple[str, ...]) -> str:
        """One digest over names and content of all files below `sources`, in a fixed order."""
        return await asyncio.to_thread(_digest, folder, sources)


def _digest(folder: Path, sources: tuple[str, ...]) -> str:
    total = hashlib.blake2b(digest_size=32)
    for source in sorted(set(sources)):
        for file in _files(folder / source):
            name = file.relative_to(folder).as_posix() if file.is_relative_to(folder) else file.as_posix()
            total.update(f"{len(name)}:{name}:".encode())
            with file.open("rb") as stream:
                total.update(hashlib.file_digest(stream, "blake2b").digest())
    return total.hexdigest()


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir():
        for child in sorted(path.iterdir()):
            if child.name not in _IGNORED:
                yield from _files(child)
