"""The whole store as one file that any database can be filled with again: gzip, a JSON record on each line.

The first line says what it is and holds the wrapped keys, the last one the number of rows and the SHA-256 of all lines
before it. Values stay sealed as they are.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from skyspan import __version__
from skyspan.app.audit import remember
from skyspan.app.documents import Document, timestamp
from skyspan.app.session import Session
from skyspan.contracts.upkeep import Write
from skyspan.model.error import NotFoundError, RefusedError, StoreCorruptError, UsageError
from skyspan.secrets import bundle, private_file
from skyspan.secrets.locked import rotating

_FORMAT, _VERSION = "skyspan-backup", 1
_LONGEST_LINE = 256 * 2**20


async def backup(session: Session, path: Path) -> Document:
    """Write a backup of the whole store to `path` (0600, all or nothing) while others go on working."""
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(f"{path} is no place for a file")
    await remember(session, "backup taken", detail=str(path))
    home = session.settings.home
    # Keys and rows must be of one moment: a rotation in between would leave rows that the keys do not open.
    with rotating(home, shared=True), private_file.drafting(path) as file:
        writer = _Writer(file, _head(session, bundle.collect(home)))
        await session.upkeep.dump(writer.begin)
        writer.end()
    key = bundle.key_file(home)
    return {
        "file": str(path),
        "rows": writer.rows,
        "sha256": writer.digest,
        "bytes": path.stat().st_size,
        "key_file": str(key) if key else None,
    }


async def restore(session: Session, path: Path, *, replace: bool, key: Path | None = None) -> Document:
    """Fill the store from a backup, all or nothing, after everything about it was checked.

    `key` is the key file of the home it is from, where that is not this one's. Raises UsageError for a store that is
    not empty unless `replace`, RefusedError while somebody works with it, StoreCorruptError for a damaged file,
    SealError when its keys cannot be opened here.
    """
    found = await asyncio.to_thread(verify, path)
    keys = bundle.KeyBundle.restore(found.head["keys"])
    home, passphrase = session.settings.home, session.passphrase
    bundle.unlock(keys, home, passphrase, key)
    aside = await _make_room(session, replace=replace)
    with rotating(home):
        bundle.adopt(keys, home, passphrase, key)
        now = session.clock.now()
        rows = await session.upkeep.load(lambda: _data(path), replace=replace, now=now)
    await remember(session, "store restored", detail=f"{path}, made {found.head['made_at']}")
    survey = await session.upkeep.survey()
    return {
        "file": str(path),
        "made_at": found.head["made_at"],
        "rows": rows,
        "moved_aside": aside,
        "flaws": [f"{flaw.what}: {flaw.where}: {flaw.found}" for flaw in survey.flaws],
    }


@dataclass(frozen=True, slots=True)
class Verified:
    """A backup whose checksum is right."""

    head: dict[str, Any]
    rows: int


def verify(path: Path) -> Verified:
    """Read a backup from end to end. Raises NotFoundError, or StoreCorruptError for anything but a whole one."""
    digest, head, rows, last = hashlib.sha256(), None, 0, None
    for line in _lines(path):
        if last is not None:
            digest.update(last)
            record = _json(path, last)
            head = record if head is None else head
            rows += isinstance(record, list)
        last = line
    end = _json(path, last or b"null")
    if not isinstance(head, dict) or head.get("format") != _FORMAT:
        raise _damaged(path, "it is no backup of Skyspan")
    if head.get("version") != _VERSION:
        raise UsageError(f"{path} was made by a newer Skyspan", hint="upgrade Skyspan")
    if not isinstance(end, dict) or (end.get("rows"), end.get("sha256")) != (rows, digest.hexdigest()):
        raise _damaged(path, "its checksum is wrong or missing")
    return Verified(head, rows)


class _Writer:
    """Writes the lines of a backup, and starts over when it has to."""

    def __init__(self, file: IO[bytes], head: dict[str, Any]) -> None:
        self._file, self._head = file, head
        self._packed = gzip.GzipFile(fileobj=file, mode="wb", compresslevel=6, mtime=0)
        self._hash = hashlib.sha256()
        self.rows = 0
        self.digest = ""

    def begin(self) -> Write:
        self._packed.close()
        self._file.seek(0)
        self._file.truncate()
        self._packed = gzip.GzipFile(fileobj=self._file, mode="wb", compresslevel=6, mtime=0)
        self._hash, self.rows = hashlib.sha256(), 0
        self._line(self._head)
        return self._line

    def end(self) -> None:
        self.digest = self._hash.hexdigest()
        self._line({"rows": self.rows, "sha256": self.digest})
        self._packed.close()

    def _line(self, record: Any) -> None:
        data = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        self.rows += isinstance(record, list)
        self._hash.update(data)
        self._packed.write(data)


def _head(session: Session, keys: bundle.KeyBundle) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "skyspan": __version__,
        "made_at": timestamp(session.clock.now()),
        "keys": keys.document(),
    }


def _data(path: Path) -> Iterator[Any]:
    """The records between the first line and the last."""
    waiting: Any = None
    for place, line in enumerate(_lines(path)):
        if place > 1:
            yield waiting
        if place > 0:
            waiting = _json(path, line)


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with gzip.open(path, "rb") as file:
            while line := file.readline(_LONGEST_LINE):
                yield line
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no backup {path}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, str(error)) from error


def _json(path: Path, line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, why: str) -> StoreCorruptError:
    return StoreCorruptError(f"{path} is no whole backup", detail=why, hint="take another backup file")


async def _make_room(session: Session, *, replace: bool) -> str | None:
    """Refuse what must not be replaced; a SQLite file too damaged to be read is moved aside, and where to."""
    hint = "--replace gives up all that it holds; `skyspan backup` saves it first"
    try:
        empty = await session.upkeep.empty()
        holders = await session.upkeep.held(session.clock.now())
    except StoreCorruptError:
        if not replace:
            raise
        return _move_aside(session)
    if not empty and not replace:
        raise UsageError(f"the store {session.settings.store.split('@')[-1]} is not empty", hint=hint)
    for lease in holders:
        raise RefusedError(
            f"{lease.owner} is at work on {lease.deployment}: {lease.verb.value}, run {lease.run_id}",
            hint=f"wait for it, or stop it: skyspan cancel {lease.deployment.name}",
        )
    return None


def _move_aside(session: Session) -> str | None:
    store = session.settings.store
    if "://" in store:
        return None
    stamp = int(session.clock.now())
    for suffix in ("-wal", "-shm", ""):
        damaged = Path(store + suffix)
        if damaged.exists():
            damaged.rename(damaged.with_name(f"{Path(store).name}.damaged-{stamp}{suffix}"))
    return f"{store}.damaged-{stamp}"
