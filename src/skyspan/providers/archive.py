"""Files as one tar archive for a host: the same bytes for the same files, whenever it is made (pure)."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum


class Shape(StrEnum):
    """What an entry of an archive is."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "link"


@dataclass(frozen=True, slots=True)
class Entry:
    """A file by its path in the archive, with its permissions and owner; the `content` of a link is where it leads."""

    path: str
    content: bytes = field(default=b"", repr=False)
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    shape: Shape = Shape.FILE


def archived(entries: Iterable[Entry]) -> bytes:
    """A tar archive of them, in their order; without any time, so that equal files make equal archives."""
    told = io.BytesIO()
    with tarfile.open(fileobj=told, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in entries:
            info = tarfile.TarInfo(entry.path)
            info.mode, info.uid, info.gid = entry.mode, entry.uid, entry.gid
            if entry.shape is Shape.FILE:
                info.size = len(entry.content)
                archive.addfile(info, io.BytesIO(entry.content))
                continue
            info.type = tarfile.DIRTYPE if entry.shape is Shape.FOLDER else tarfile.SYMTYPE
            info.linkname = entry.content.decode(errors="surrogateescape")
            archive.addfile(info)
    return told.getvalue()


def compressed(data: bytes) -> bytes:
    """The same by gzip, whose header would otherwise hold the time."""
    return gzip.compress(data, mtime=0)
