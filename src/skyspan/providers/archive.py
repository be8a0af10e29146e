"""Files as one tar archive for a host: the same bytes for the same files, whenever it is made (pure)."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Entry:
    """A file by its path in the archive, with its permissions and owner."""

    path: str
    content: bytes = field(repr=False)
    mode: int = 0o644
    uid: int = 0
    gid: int = 0


def archived(entries: Iterable[Entry]) -> bytes:
    """A tar archive of them, in their order; without any time, so that equal files make equal archives."""
    told = io.BytesIO()
    with tarfile.open(fileobj=told, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in entries:
            info = tarfile.TarInfo(entry.path)
            info.size, info.mode, info.uid, info.gid = len(entry.content), entry.mode, entry.uid, entry.gid
            archive.addfile(info, io.BytesIO(entry.content))
    return told.getvalue()


def compressed(data: bytes) -> bytes:
    """The same by gzip, whose header would otherwise hold the time."""
    return gzip.compress(data, mtime=0)
