"""SQLite: one file in the state home, safe against power loss, shared by processes of one machine."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import sqlalchemy as sa

from skyspan.model.error import StoreCorruptError, StoreError, StoreUnavailableError
from skyspan.store.flavour import Trouble, driver_error

_WAL_ATTEMPTS = 50
_WAL_PAUSE_S = 0.02

_LEAST_BYTES = 512
"""The smallest page: no database file is shorter."""

_RESTORE = (
    "Restore it from a backup. To begin with an empty store instead, move the file and its -wal and -shm away; "
    "Skyspan then knows nothing of what exists."
)

_MEANINGS: Mapping[int, tuple[type[StoreError], str, str]] = MappingProxyType(
    {
        sqlite3.SQLITE_FULL: (
            StoreUnavailableError,
            "no space is left on the disk of the store {where}",
            "Free some space, then repeat the command: everything recorded so far is kept.",
        ),
        sqlite3.SQLITE_READONLY: (
            StoreUnavailableError,
            "the store {where} cannot be written",
            "Check the owner and mode of the file and its folder, and whether the file system is mounted read-only; "
            "or choose another place with --home.",
        ),
        sqlite3.SQLITE_CANTOPEN: (
            StoreUnavailableError,
            "the store {where} cannot be opened",
            "Check that its folder exists and that you may read and write it; or choose another place with --home.",
        ),
        sqlite3.SQLITE_PERM: (
            StoreUnavailableError,
            "access to the store {where} was denied",
            "Check the owner and mode of the file and its folder.",
        ),
        sqlite3.SQLITE_BUSY: (
            StoreUnavailableError,
            "another process has kept the store {where} locked for too long",
            "Wait for it to finish, or look for a process that hangs with the file open (`fuser` shows it).",
        ),
        sqlite3.SQLITE_PROTOCOL: (
            StoreUnavailableError,
            "the store {where} could not be locked",
            "Put the state home on a local disk: SQLite needs working file locks.",
        ),
        sqlite3.SQLITE_IOERR: (
            StoreUnavailableError,
            "the disk of the store {where} failed or is full",
            "Check the free space and the health of the disk; the state home must be on a local disk.",
        ),
        sqlite3.SQLITE_CORRUPT: (StoreCorruptError, "the store {where} is damaged", _RESTORE),
        sqlite3.SQLITE_NOTADB: (StoreCorruptError, "the store {where} is not a database, or is damaged", _RESTORE),
    }
)
"""By primary result code."""


class SqliteFlavour:
    """The database file at `path`; writers wait up to `patience_s` seconds for one another."""

    def __init__(self, path: Path, *, patience_s: float = 10.0) -> None:
        self._path = path
        self._patience_s = patience_s

    @property
    def where(self) -> str:
        return str(self._path)

    def connect(self) -> sa.Connection:
        self._make_file()
        engine = sa.create_engine(
            sa.URL.create("sqlite", database=str(self._path)),
            isolation_level="AUTOCOMMIT",
            poolclass=sa.NullPool,
            connect_args={"timeout": self._patience_s},
        )
        connection = engine.connect()
        try:
            connection.exec_driver_sql("PRAGMA foreign_keys=ON")
            self._switch_to_wal(connection)
            connection.exec_driver_sql("PRAGMA synchronous=FULL")
        except BaseException:
            connection.close()
            raise
        return connection

    def begin(self, connection: sa.Connection, *, writes: bool, exclusive: bool = False) -> None:
        # IMMEDIATE takes the write lock now, where waiting for it works; a later upgrade would fail at once.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes or exclusive else "BEGIN")

    def mark(self, connection: sa.Connection) -> str | None:
        return None

    def committed(self, connection: sa.Connection, mark: str) -> bool | None:
        return None

    def settle(self, connection: sa.Connection) -> None:
        # There is one writer at a time: having been that one, all before have ended.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        connection.exec_driver_sql("ROLLBACK")

    def compact(self, connection: sa.Connection) -> None:
        connection.exec_driver_sql("VACUUM")
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    def trouble(self, problem: BaseException) -> Trouble | None:
        cause = driver_error(problem)
        if isinstance(cause, OSError):
            return Trouble(
                StoreUnavailableError(
                    f"the store {self.where} cannot be used: {cause.strerror or cause}",
                    hint="Check the owner, mode and free space of its folder; or choose another place with --home.",
                )
            )
        if not isinstance(cause, sqlite3.Error):
            return None
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
        kind, summary, hint = _MEANINGS.get(
            code, (StoreUnavailableError, "the store {where} refused an operation", "This is a fault of Skyspan.")
        )
        name = getattr(cause, "sqlite_errorname", "")
        return Trouble(
            kind(summary.format(where=self.where), detail=f"SQLite: {cause}{f' ({name})' if name else ''}", hint=hint),
        )

    def _make_file(self) -> None:
        """Create the file 0600 before SQLite would do it by the umask; its -wal and -shm take the mode over."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            status = self._path.stat()
            if 0 < status.st_size < _LEAST_BYTES:
                # SQLite would take it for an empty database and write over it.
                raise StoreCorruptError(f"the store {self.where} is cut off", hint=_RESTORE) from None
            if status.st_mode & 0o077 and status.st_uid == os.geteuid():
                self._path.chmod(0o600)

    def _switch_to_wal(self, connection: sa.Connection) -> None:
        """WAL stays switched on in the file. Two processes that do it at once get "locked" without any waiting."""
        if connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal":
            return
        for attempt in range(1, _WAL_ATTEMPTS + 1):
            try:
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            except sa.exc.OperationalError as problem:
                busy = getattr(driver_error(problem), "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or attempt == _WAL_ATTEMPTS:
                    raise
                time.sleep(_WAL_PAUSE_S)
            else:
                return
