"""A PostgreSQL server of its own for tests: made in a temporary folder, reached by socket, gone afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

import pg8000.dbapi

USER = "skyspan"
PACKAGED = Path("/usr/lib/postgresql")
"""Where Debian's `postgresql` puts each version's programs, none of them on PATH."""


class PostgresServer:
    """A cluster without durability (`fsync=off`), for one test session. A context manager."""

    def __init__(self) -> None:
        self._programs = find_programs()
        self._folder = Path(tempfile.mkdtemp(prefix="skyspan-pg-"))
        self._identity = unprivileged()
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self._free: list[str] = []
        self._used: list[str] = []

    def __enter__(self) -> PostgresServer:
        if self._identity:
            os.chown(self._folder, self._identity[0], self._identity[1])
        made = self._run(
            "initdb", "-D", self._data, "-U", USER, "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"
        )
        output, _ = made.communicate(timeout=60)
        if made.returncode:
            raise RuntimeError(f"initdb failed:\n{output.decode(errors='replace')}")
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """Start it and wait until it answers."""
        quick = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=60")
        settings = [
            part
            for name in (*quick, "listen_addresses=", f"unix_socket_directories={self._folder}")
            for part in ("-c", name)
        ]
        self._process = self._run("postgres", "-D", self._data, *settings)
        deadline = time.monotonic() + 30
        while True:
            try:
                self.connect("postgres").close()
            except pg8000.dbapi.Error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"PostgreSQL did not start; its files are in {self._folder}") from None
                time.sleep(0.05)
            else:
                return

    def stop(self, *, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT ends all connections in order, SIGQUIT like a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.communicate(timeout=30)
            self._process = None

    def connect(self, database: str) -> pg8000.dbapi.Connection:
        """A plain connection, for looking behind the store's back."""
        socket = f"{self._folder}/.s.PGSQL.5432"
        connection = pg8000.dbapi.connect(USER, unix_sock=socket, database=database)
        connection.autocommit = True
        return connection

    def database(self) -> str:
        """The URL of an empty database."""
        if self._free:
            name = self._free.pop()
        else:
            self._databases += 1
            name = f"d{self._databases}"
            self.execute("postgres", f"CREATE DATABASE {name}")
        self._used.append(name)
        return f"postgresql://{USER}@/{name}?host={self._folder}"

    def reclaim(self) -> None:
        """Empty all databases handed out, to hand them out again: making one costs 8 MB and much longer."""
        while self._used:
            name = self._used.pop()
            self.disconnect(name)
            self.execute(name, "DROP SCHEMA public CASCADE")
            self.execute(name, "CREATE SCHEMA public")
            self._free.append(name)

    def disconnect(self, database: str) -> None:
        """End every connection to it, as an idle timeout or a failing network would."""
        sql = f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{database}'"
        self.execute("postgres", sql)

    def execute(self, database: str, sql: str) -> list[tuple[object, ...]]:
        """The rows of a statement."""
        connection = self.connect(database)
        try:
            cursor = connection.cursor()
            cursor.execute(sql)
            return [tuple(row) for row in cursor.fetchall()] if cursor.description else []
        finally:
            connection.close()

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    def _run(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        user, group = self._identity or (None, None)
        return subprocess.Popen(
            [self._programs / program, *arguments],
            stdout=subprocess.PIPE if program == "initdb" else subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            cwd=self._folder,
            env={"PATH": os.defpath, "LC_ALL": "C"},
            user=user,
            group=group,
            extra_groups=[] if user is not None else None,
            start_new_session=True,
        )


def find_programs() -> Path:
    """The folder of `postgres` and `initdb`; a missing PostgreSQL is an error, never a skipped test."""
    on_path = shutil.which("postgres")
    if on_path:
        return Path(on_path).resolve().parent
    packaged = sorted(PACKAGED.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if not packaged:
        raise RuntimeError("PostgreSQL is missing: install Debian's package `postgresql`, or put `postgres` on PATH")
    return packaged[-1].parent


def unprivileged() -> tuple[int, int] | None:
    """Whom to run the server as: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = names.get("postgres") or names["nobody"]
    return entry.pw_uid, entry.pw_gid
