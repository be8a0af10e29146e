"""A configuration as one value: the files of the root module and of everything beside it that it names.

Read from the composition's folder, or from the archive that was kept when it was applied.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import posixpath
import stat
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from skyspan.model.error import SpecError, StageError
from skyspan.providers.terraform.hcl import Facts, is_configuration, scan

LOCK_FILE = ".terraform.lock.hcl"
OVERRIDE_FILE = "skyspan_override.tf.json"
IMPORT_FILE = "skyspan_import.tf"
LOOKUP_FILE = "skyspan_lookup.tf.json"

SIZE_LIMIT = 128 * 1024 * 1024
"""Bytes of one configuration: it is held in memory and kept sealed, so that destroy works without the source."""

_LEFT_OUT = frozenset({".terraform", ".git", "errored.tfstate", "crash.log", OVERRIDE_FILE, IMPORT_FILE, LOOKUP_FILE})


@dataclass(frozen=True, slots=True)
class File:
    """A file's content, and whether it may be executed."""

    data: bytes = field(repr=False)
    executable: bool = False


@dataclass(frozen=True)
class Configuration:
    """Files by their path relative to the composition's folder; `root` is the root module's folder there.

    `lock` is the dependency lock file that came with the source; without one, that of the last init is used. `extra`
    are files of ours in the root module, for one command alone: they change neither digest nor facts, nor are they
    packed.
    """

    root: str
    files: Mapping[str, File]
    lock: bytes | None = None
    extra: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @cached_property
    def facts(self) -> Facts:
        """What all configuration files say; backend, provider and variable blocks count in the root module only."""
        total = Facts()
        for path, file in self.files.items():
            if not is_configuration(path):
                continue
            found = scan(path, file.data.decode(errors="replace"))
            in_root = posixpath.dirname(path) == ("" if self.root == "." else self.root)
            needs = frozenset(f"{posixpath.dirname(path)}: {need}" for need in found.needs)
            total |= Facts(
                backend=found.backend if in_root else "",
                encrypted=found.encrypted and in_root,
                needs=needs,
                upward=found.upward,
                providers=found.providers,
                configurations=found.configurations if in_root else frozenset(),
                variables=found.variables if in_root else frozenset(),
            )
        return total

    @cached_property
    def digest(self) -> str:
        """Equal for equal content (64 hex digits); the lock file does not count."""
        total = hashlib.blake2b(self.root.encode(), digest_size=32)
        for path in sorted(self.files):
            file = self.files[path]
            content = hashlib.blake2b(file.data, digest_size=32).hexdigest()
            total.update(f"\0{path}\0{file.executable}\0{content}".encode())
        return total.hexdigest()

    @property
    def empty(self) -> bool:
        """Whether the root module has no configuration file at all."""
        folder = "" if self.root == "." else self.root
        return not any(is_configuration(path) and posixpath.dirname(path) == folder for path in self.files)

    def pack(self) -> bytes:
        """As a tar archive, equal for equal content."""
        target = io.BytesIO()
        with (
            gzip.GzipFile(fileobj=target, mode="wb", mtime=0, filename="") as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            _add(archive, "root", File(self.root.encode()))
            if self.lock is not None:
                _add(archive, "lock", File(self.lock))
            for path in sorted(self.files):
                _add(archive, f"files/{path}", self.files[path])
        return target.getvalue()

    @classmethod
    def unpack(cls, data: bytes) -> Configuration:
        """The configuration that `pack` made `data` of."""
        members: dict[str, File] = {}
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
            for member in archive:
                content = archive.extractfile(member)
                if content is not None:
                    members[member.name] = File(content.read(), bool(member.mode & stat.S_IXUSR))
        files = {name.removeprefix("files/"): file for name, file in members.items() if name.startswith("files/")}
        lock = members.get("lock")
        return cls(members["root"].data.decode(), files, lock.data if lock else None)


def read_configuration(folder: Path, source: str, work: Path) -> Configuration:
    """The configuration in `source` below the composition's `folder`, with what it names by `../`.

    `work` is left out where it lies inside. Raises SpecError for a missing or empty folder, for links and modules that
    lead out of the composition's folder, and for a folder that is too big.
    """
    reader = _Reader(folder.resolve(), work.resolve())
    root = posixpath.normpath(source)
    if not (folder / source).is_dir():
        msg = f"source folder {source} does not exist"
        raise SpecError(msg, detail=f"looked for {folder / source}", hint="correct `source:` or create the folder")
    reader.add(root)
    reader.add_what_is_named(root)
    lock = reader.files.pop(posixpath.normpath(posixpath.join(root, LOCK_FILE)), None)
    found = Configuration(root, reader.files, lock.data if lock else None)
    if found.empty:
        msg = f"source folder {source} has no configuration"
        raise SpecError(msg, hint="it needs at least one *.tf, *.tofu or *.tf.json file")
    return found


class _Reader:
    """Collects files below the composition's folder, following links that stay inside."""

    def __init__(self, top: Path, work: Path) -> None:
        self.files: dict[str, File] = {}
        self._top = top
        self._work = work
        self._size = 0

    def add(self, path: str) -> None:
        """Take the file or folder at `path` (relative, normalised)."""
        self._add(path, self._top / path, ())

    def add_what_is_named(self, root: str) -> None:
        """Take what the files so far name outside of what is taken, until nothing new is named."""
        scanned: set[str] = set()
        while todo := [path for path in sorted(self.files) if path not in scanned and is_configuration(path)]:
            for path in todo:
                scanned.add(path)
                for named in scan(path, self.files[path].data.decode(errors="replace")).upward:
                    start = root if named.from_root else posixpath.dirname(path)
                    self._add_named(path, posixpath.normpath(posixpath.join(start, named.path)), named.required)

    def _add_named(self, by: str, path: str, required: bool) -> None:
        outside = path == ".." or path.startswith("../")
        if outside and required:
            msg = f"{by} names a module outside of the composition's folder: {path}"
            raise SpecError(msg, hint="move skyspan.yaml up, so that it stands above all modules")
        # A folder above the file's own is far more than a mere text `../` means; a module may well be there.
        above = PurePosixPath(by).is_relative_to(path) and not required
        if outside or above or not (self._top / path).exists():
            return
        self.add(path)

    def _add(self, path: str, real: Path, above: tuple[Path, ...]) -> None:
        if path in self.files:
            return
        resolved = real.resolve()
        if not resolved.is_relative_to(self._top):
            msg = f"{path} is a link that leads out of the composition's folder"
            raise SpecError(msg, detail=f"it points to {resolved}", hint="copy what it points to, or link inside")
        try:
            if resolved.is_dir():
                if resolved not in above:
                    for name in self._names(resolved):
                        self._add(posixpath.normpath(f"{path}/{name}"), resolved / name, (*above, resolved))
            elif resolved.is_file():
                self.files[path] = self._read(path, resolved)
        except OSError as error:
            msg = f"cannot read {path}: {error.strerror}"
            raise SpecError(msg, hint="check its permissions") from error

    def _names(self, folder: Path) -> Iterator[str]:
        for name in sorted(entry.name for entry in folder.iterdir()):
            state = name.endswith(".tfstate") or ".tfstate." in name
            holds_work = self._work.is_relative_to(folder / name)
            if name not in _LEFT_OUT and not state and not holds_work:
                yield name

    def _read(self, path: str, real: Path) -> File:
        size = real.stat().st_size
        self._size += size
        if self._size > SIZE_LIMIT:
            msg = f"the configuration is over {SIZE_LIMIT // 2**20} MB (reached at {path})"
            raise SpecError(msg, hint="keep large artefacts elsewhere and pass their place as a variable")
        return File(real.read_bytes(), os.access(real, os.X_OK))


def _add(archive: tarfile.TarFile, name: str, file: File) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(file.data)
    entry.mode = 0o755 if file.executable else 0o644
    archive.addfile(entry, io.BytesIO(file.data))


def checked_path(path: str) -> PurePosixPath:
    """`path` of an archive, which must stay below where it is unpacked."""
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts:
        msg = f"the kept configuration holds a path that leads out of its folder: {path}"
        raise StageError(msg)
    return parts
