"""The stage's own copy of the configuration, below its work folder, and who may change it when.

- WORK/tree: the copy, by composition-relative paths, so that `../modules/x` still resolves
- WORK/data: what init installs (TF_DATA_DIR)
- WORK/scratch: per verb: variables and plan; removed when the verb ends
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skyspan.contracts.context import Clock
from skyspan.model.error import Retry, StageError
from skyspan.model.value import digest
from skyspan.providers.terraform.configuration import LOCK_FILE, OVERRIDE_FILE, Configuration, File, checked_path

_WAIT_S = 60.0
_POLL_S = 0.1
_MANIFEST = "tree.json"
_INSTALLED = "skyspan-init.json"
_ALIVE = ".alive"


@dataclass(frozen=True, slots=True)
class WorkTree:
    """The folders below a stage's work folder."""

    work: Path

    @property
    def tree(self) -> Path:
        """The copy of the configuration."""
        return self.work / "tree"

    @property
    def data(self) -> Path:
        """What init installs."""
        return self.work / "data"

    def left_behind(self, source: str) -> tuple[Path, ...]:
        """Where a state may lie in clear after trouble: what a tool saved beside itself because it could not push it,
        and what a run of an earlier Skyspan, which kept it in a file, left when it was killed."""
        return (self.tree / source / "errored.tfstate", self.work / "state" / "terraform.tfstate")

    @property
    def refreshed(self) -> Path:
        """Notes the state that the last observation found to be exactly what is real."""
        return self.work / "refreshed"

    def folder(self, configuration: Configuration) -> Path:
        """The root module in the tree."""
        return self.tree / configuration.root

    def holds(self, configuration: Configuration, override: Mapping[str, Any]) -> bool:
        """Whether the tree is that configuration, file by file."""
        wanted = _with_override(configuration, override)
        if set(self._manifest()) != set(wanted):
            return False
        return all(_same(self.tree / path, file) for path, file in wanted.items())

    def write(self, configuration: Configuration, override: Mapping[str, Any]) -> None:
        """Make the tree that configuration: changed files written, files that are gone removed, the rest left alone."""
        self.work.mkdir(parents=True, exist_ok=True)
        self.work.chmod(0o700)
        wanted = _with_override(configuration, override)
        for path in set(self._manifest()) - set(wanted):
            (self.tree / checked_path(path)).unlink(missing_ok=True)
        for path, file in wanted.items():
            target = self.tree / checked_path(path)
            if not _same(target, file):
                _make_room(self.tree, target)
                write_private(target, file.data, 0o700 if file.executable else 0o600)
        self.folder(configuration).mkdir(parents=True, exist_ok=True)
        write_private(self.work / _MANIFEST, json.dumps(sorted(wanted)).encode())

    def installed(self, wanted: str) -> bool:
        """Whether init has been done for what `wanted` is the digest of."""
        try:
            return (self.data / _INSTALLED).read_text() == wanted
        except OSError:
            return False

    def note_installed(self, wanted: str) -> None:
        """Remember that init has been done. Inside the data folder, so that both vanish together."""
        write_private(self.data / _INSTALLED, wanted.encode())

    def forget_installed(self) -> None:
        """Let the next verb init again."""
        (self.data / _INSTALLED).unlink(missing_ok=True)

    def put_lock_file(self, configuration: Configuration, kept: bytes | None) -> None:
        """Before init: the user's own lock file wins, then the one in the tree, then the kept one."""
        target = self.folder(configuration) / LOCK_FILE
        if configuration.lock is not None:
            write_private(target, configuration.lock)
        elif kept is not None and not target.exists():
            write_private(target, kept)

    def lock_file(self, configuration: Configuration) -> bytes | None:
        """The lock file as init left it."""
        try:
            return (self.folder(configuration) / LOCK_FILE).read_bytes()
        except OSError:
            return None

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A private folder for one verb; what killed verbs left is removed first."""
        top = self.work / "scratch"
        top.mkdir(parents=True, exist_ok=True)
        for left in top.iterdir():
            if not _is_alive(left / _ALIVE):
                shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(dir=top))
        try:
            with (folder / _ALIVE).open("w") as alive:
                fcntl.flock(alive, fcntl.LOCK_EX)
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _manifest(self) -> list[str]:
        try:
            return list(json.loads((self.work / _MANIFEST).read_bytes()))
        except (OSError, ValueError):
            return []


def install_digest(configuration: Configuration, override: Mapping[str, Any], tool: str, config: str) -> str:
    """What init depends on: providers, modules, backend, lock file, override, tool and its CLI configuration."""
    facts = configuration.facts
    lock = (configuration.lock or b"").decode(errors="replace")
    return digest([configuration.root, sorted(facts.needs), facts.backend, lock, dict(override), tool, config])


def write_private(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file that nobody else can read, all or nothing: durable, then renamed into place."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextlib.asynccontextmanager
async def held(path: Path, clock: Clock, *, exclusive: bool, what: str) -> AsyncIterator[None]:
    """Hold an advisory lock on the file `path` (made when absent, never written); the kernel drops it should we die.

    Raises StageError to be tried later when somebody else holds it for over a minute.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    give_up = clock.monotonic() + _WAIT_S
    # Made when absent but never replaced: a lock on a file that somebody else has replaced excludes nobody.
    handle = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while not _take(handle, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH):
            if clock.monotonic() >= give_up:
                msg = f"{what} is in use by another run"
                raise StageError(msg, detail=f"lock file: {path}", hint="wait for that run to end", retry=Retry.LATER)
            await clock.sleep(_POLL_S)
        yield
    finally:
        os.close(handle)


def _take(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_alive(path: Path) -> bool:
    try:
        with path.open("r") as file:
            return not _take(file.fileno(), fcntl.LOCK_EX)
    except OSError:
        return False


def _with_override(configuration: Configuration, override: Mapping[str, Any]) -> dict[str, File]:
    files = dict(configuration.files)
    prefix = "" if configuration.root == "." else f"{configuration.root}/"
    files |= {prefix + name: File(data) for name, data in configuration.extra.items()}
    if override:
        files[prefix + OVERRIDE_FILE] = File(json.dumps(override, indent=1, sort_keys=True).encode())
    return files


def _same(path: Path, file: File) -> bool:
    try:
        return path.read_bytes() == file.data and os.access(path, os.X_OK) == file.executable
    except OSError:
        return False


def _make_room(tree: Path, target: Path) -> None:
    """A folder may have become a file, or a file a folder."""
    if target.is_dir():
        shutil.rmtree(target)
    for parent in target.relative_to(tree).parents:
        place = tree / parent
        if place != tree and place.is_file():
            place.unlink()
