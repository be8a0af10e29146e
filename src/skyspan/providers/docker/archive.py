"""Files as an archive for `docker cp -`: the same bytes for the same files, whenever it is made (pure)."""

from __future__ import annotations

import base64
import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass

from skyspan.model.secret import Secret


@dataclass(frozen=True, slots=True)
class FileInside:
    """A file of a container; `path` is absolute."""

    path: str
    content: bytes
    mode: int = 0o644
    uid: int = 0
    gid: int = 0


def packed(files: Sequence[FileInside]) -> Secret:
    """The files as a tar archive in base64; folders that are missing are made by Docker."""
    told = io.BytesIO()
    with tarfile.open(fileobj=told, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for file in sorted(files, key=lambda one: one.path):
            info = tarfile.TarInfo(file.path.lstrip("/"))
            info.size, info.mode, info.uid, info.gid = len(file.content), file.mode, file.uid, file.gid
            archive.addfile(info, io.BytesIO(file.content))
    return Secret(base64.encodebytes(told.getvalue()).decode())
