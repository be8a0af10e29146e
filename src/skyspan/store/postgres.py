"""PostgreSQL through pg8000: one database shared by engines on several machines."""

from __future__ import annotations

import os
import pwd
import socket
import ssl
import struct
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pg8000.exceptions
import sqlalchemy as sa

from skyspan.model.error import StoreCorruptError, StoreError, StoreUnavailableError, UsageError
from skyspan.store.flavour import Trouble, driver_error

_ANSWER_S = 30.0
"""A server that says nothing for so long is gone: every statement of ours is short, and waits for locks end earlier."""

_PAUSE_S = 0.05

_SCHEMA_LOCK = 0x5359_5350
"""Key of the advisory lock under which the schema is made or changed."""

_DURABLE = "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
"""A server set up for speed would lose commits in a crash that we have already answered for."""

_AGAIN = frozenset({"40001", "40P01"})
"""Serialization failure and deadlock: the server asks to repeat the transaction."""

_LOST = frozenset({"57P01", "57P02", "57P03", "57P05", "25P03"})
"""Shut down, crashed, starting up, idle session ended, idle in a transaction; like all of class 08."""

_IDLE_S = 2.0
"""The least that a transaction may stand still: ours never wait for anything but the server."""

_MEANINGS: Mapping[str, tuple[type[StoreError], str, str]] = MappingProxyType(
    {
        "08": (StoreUnavailableError, "the connection to the store {where} was lost", "Check that the server runs."),
        "57": (StoreUnavailableError, "the server of the store {where} is not ready", "Check that the server runs."),
        "28": (
            StoreUnavailableError,
            "the server of the store {where} refused the login",
            "Check user and password in the store's URL.",
        ),
        "3D": (StoreUnavailableError, "the database of the store {where} does not exist", "Create it with `createdb`."),
        "42501": (
            StoreUnavailableError,
            "access to the store {where} was denied",
            "The user needs to own the tables, or may need the right to create tables in the schema.",
        ),
        "25006": (
            StoreUnavailableError,
            "the server of the store {where} is read-only",
            "Point the URL at the primary server, not at a standby.",
        ),
        "53": (
            StoreUnavailableError,
            "the server of the store {where} ran out of disk, memory or connections",
            "Free some on the server, then repeat the command: everything recorded so far is kept.",
        ),
        "55P03": (
            StoreUnavailableError,
            "somebody has kept rows of the store {where} locked for too long",
            "Look for open transactions in `pg_stat_activity`.",
        ),
        "XX001": (StoreCorruptError, "the store {where} is damaged", "Restore the database from a backup."),
        "XX002": (StoreCorruptError, "the store {where} is damaged", "Reindex it, or restore it from a backup."),
    }
)
"""By SQLSTATE, or by its class."""


class PostgresFlavour:
    """The database at `url`; a transaction waits up to `patience_s` seconds for each lock."""

    def __init__(self, url: sa.URL, *, patience_s: float = 10.0) -> None:
        self._where = url.render_as_string(hide_password=True)
        self._patience_s = patience_s
        self._engine: sa.Engine | None = None
        self._url, self._arguments = _driver_settings(url)

    @property
    def where(self) -> str:
        return self._where

    def connect(self) -> sa.Connection:
        if self._engine is None:
            self._engine = sa.create_engine(
                self._url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool, connect_args=self._arguments
            )
            sa.event.listen(self._engine, "do_connect", _connect)
        connection = self._engine.connect()
        try:
            connection.exec_driver_sql(f"SET lock_timeout = {int(self._patience_s * 1000)}")
            # A process that was stopped in the middle of a transaction must not hold up who takes over from it.
            idle_s = max(self._patience_s / 2, _IDLE_S)
            connection.exec_driver_sql(f"SET idle_in_transaction_session_timeout = {int(idle_s * 1000)}")
            connection.exec_driver_sql(_DURABLE)
        except BaseException:
            connection.close()
            raise
        return connection

    def begin(self, connection: sa.Connection, *, writes: bool, exclusive: bool = False) -> None:
        if writes or exclusive:
            connection.exec_driver_sql("BEGIN")
        else:
            connection.exec_driver_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        if exclusive:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})")

    def mark(self, connection: sa.Connection) -> str | None:
        return str(connection.exec_driver_sql("SELECT pg_current_xact_id()::text").scalar_one())

    def committed(self, connection: sa.Connection, mark: str) -> bool | None:
        query = f"SELECT pg_xact_status('{int(mark)}'::xid8)"
        deadline = time.monotonic() + self._patience_s
        # A server that has not noticed the loss yet may still commit.
        while (status := connection.exec_driver_sql(query).scalar_one()) == "in progress":
            if time.monotonic() > deadline:
                return None
            time.sleep(_PAUSE_S)
        return bool(status == "committed")

    def settle(self, connection: sa.Connection) -> None:
        # Later transactions do not count, or a busy store would never come to rest. `xact_start` of other users' is
        # hidden, but all who write here own the tables.
        began = connection.exec_driver_sql("SELECT clock_timestamp()::text").scalar_one()
        query = sa.text(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() AND xact_start < CAST(:began AS timestamptz)"
        )
        deadline = time.monotonic() + self._patience_s
        while connection.execute(query, {"began": began}).scalar_one():
            if time.monotonic() > deadline:
                raise TimeoutError
            time.sleep(_PAUSE_S)

    def compact(self, connection: sa.Connection) -> None:
        connection.exec_driver_sql("VACUUM")

    def trouble(self, problem: BaseException) -> Trouble | None:
        cause = driver_error(problem)
        fields = _fields(cause)
        if fields is not None:
            return self._refusal(fields.get("C", ""), fields.get("M", ""))
        if isinstance(cause, OSError | EOFError | struct.error | pg8000.exceptions.Error):
            error = StoreUnavailableError(
                f"the store {self.where} cannot be reached",
                detail=str(cause),
                hint="Check that the server runs and that host, port and TLS settings in the store's URL are right.",
            )
            return Trouble(error, lost=True)
        return None

    def _refusal(self, state: str, message: str) -> Trouble:
        kind, summary, hint = (
            _MEANINGS.get(state)
            or _MEANINGS.get(state[:2])
            or (StoreUnavailableError, "the store {where} refused an operation", "This is a fault of Skyspan.")
        )
        error = kind(summary.format(where=self.where), detail=f"PostgreSQL: {message} ({state})", hint=hint)
        return Trouble(error, lost=state in _LOST or state.startswith("08"), again=state in _AGAIN)


def _connect(dialect: Any, _record: Any, _arguments: Any, settings: dict[str, Any]) -> Any:
    """Connect over a socket of ours: pg8000 leaves its own open when a server goes away while it says hello."""
    rest = dict(settings)
    wait_s, path = rest.pop("timeout", None), rest.pop("unix_sock", None)
    if path is not None:
        line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    else:
        line = socket.create_connection((rest.get("host") or "localhost", rest.get("port") or 5432), wait_s)
    try:
        line.settimeout(wait_s)
        if path is not None:
            line.connect(path)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return dialect.loaded_dbapi.Connection(**rest, sock=line)
    except BaseException:
        line.close()
        raise


def _fields(cause: BaseException | None) -> dict[str, str] | None:
    """What the server said. On a refused login pg8000 hides that behind its failure to say goodbye."""
    while cause is not None:
        if cause.args and isinstance(cause.args[0], dict):
            return cause.args[0]
        cause = cause.__context__ if isinstance(cause, pg8000.exceptions.InterfaceError | OSError) else None
    return None


def _driver_settings(url: sa.URL) -> tuple[sa.URL, dict[str, Any]]:
    """The URL and connect arguments for pg8000 out of what libpq understands: `host=/folder`, `sslmode`."""
    arguments: dict[str, Any] = {"timeout": _ANSWER_S}
    query = {name: value if isinstance(value, str) else value[-1] for name, value in url.query.items()}
    folder = query.pop("host", "")
    if folder.startswith("/"):
        arguments["unix_sock"] = f"{folder}/.s.PGSQL.{query.pop('port', None) or url.port or 5432}"
        url = url.set(host=None, port=None)
    elif folder:
        url = url.set(host=folder)
    mode = query.pop("sslmode", "")
    if mode:
        arguments["ssl_context"] = _tls(mode, query.pop("sslrootcert", None))
    if "application_name" in query:
        arguments["application_name"] = query.pop("application_name")
    if query:
        raise UsageError(
            f"the store's URL has settings that are not understood: {', '.join(sorted(query))}",
            hint="Known are host, port, sslmode, sslrootcert and application_name.",
        )
    if not url.username:
        url = url.set(username=pwd.getpwuid(os.geteuid()).pw_name)
    return url.set(drivername="postgresql+pg8000", query={}), arguments


def _tls(mode: str, root: str | None) -> ssl.SSLContext | None:
    if mode in ("disable", "allow", "prefer"):
        return None
    if mode not in ("require", "verify-ca", "verify-full"):
        raise UsageError(
            f"the store's URL has an unknown sslmode {mode!r}", hint="Write disable, require or verify-full."
        )
    context = ssl.create_default_context(cafile=root)
    if mode != "verify-full":
        context.check_hostname = False
    if mode == "require" and root is None:
        context.verify_mode = ssl.CERT_NONE
    return context
