"""SQLAlchemy's statements, compiled once for a connection and from then on handed straight to its driver.

SQLAlchemy's own way from a statement to the driver costs more than SQLite needs to run it, and a stage takes a dozen.
Only for columns of text, numbers and bytes, which need no conversion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

import sqlalchemy as sa

if TYPE_CHECKING:
    from sqlalchemy.sql.compiler import SQLCompiler

Values = Mapping[str, Any]
Rows = Sequence[Sequence[Any]]


class Compiled(Protocol):
    """A statement ready to run."""

    def fetch(self, values: Values) -> Rows:
        """Run it once and return all rows."""
        ...

    def change(self, rows: Sequence[Values]) -> None:
        """Run it once for each of `rows`; it returns nothing."""
        ...


class Statements:
    """The statements that one connection has compiled so far."""

    def __init__(self, connection: sa.Connection) -> None:
        self._postgres = connection.dialect.name == "postgresql"
        # pg8000 prepares statements with `:name` only.
        own: Any = type(connection.dialect)
        self._dialect: sa.Dialect = own(paramstyle="named") if self._postgres else connection.dialect
        self._driver = connection.connection.dbapi_connection
        self._cursor = connection.connection.cursor()
        self._compiled: dict[sa.Executable, Compiled] = {}
        self._upserts: dict[str, sa.Executable] = {}

    def compiled(self, statement: sa.Executable) -> Compiled:
        """`statement` ready to run."""
        found = self._compiled.get(statement)
        if found is None:
            found = self._compiled[statement] = self._compile(statement)
        return found

    def upsert(self, table: sa.Table) -> sa.Executable:
        """Insert a row of `table`, or replace the columns of the row with the same key."""
        if table.name not in self._upserts:
            statement = self._insert(table)
            keys = [column.name for column in table.primary_key]
            rest = {column.name: statement.excluded[column.name] for column in table.c if column.name not in keys}
            self._upserts[table.name] = statement.on_conflict_do_update(index_elements=keys, set_=rest)
        return self._upserts[table.name]

    def insert_missing(self, table: sa.Table) -> sa.Executable:
        """Insert a row of `table` unless there is one with the same key."""
        insert: sa.Executable = self._insert(table).on_conflict_do_nothing()
        return insert

    def _insert(self, table: sa.Table) -> Any:
        # The two dialects spell it alike but share no class; each is imported only where it is used.
        if self._postgres:
            from sqlalchemy.dialects import postgresql

            return postgresql.insert(table)
        from sqlalchemy.dialects import sqlite

        return sqlite.insert(table)

    def _compile(self, statement: sa.Executable) -> Compiled:
        text = cast("SQLCompiler", cast("sa.ClauseElement", statement).compile(dialect=self._dialect))
        return _Prepared(text, self._driver) if self._postgres else _Positional(text, self._cursor)


class _Positional:
    """SQLite's: arguments by position, on a cursor that keeps its statements prepared by itself."""

    def __init__(self, text: SQLCompiler, cursor: Any) -> None:
        self._sql = text.string
        self._names = tuple(text.positiontup or ())
        self._literals = _literals(text)
        self._cursor = cursor

    def fetch(self, values: Values) -> Rows:
        self._cursor.execute(self._sql, self._arguments(values))
        rows: Rows = self._cursor.fetchall()
        return rows

    def change(self, rows: Sequence[Values]) -> None:
        if len(rows) == 1:
            self._cursor.execute(self._sql, self._arguments(rows[0]))
        else:
            self._cursor.executemany(self._sql, [self._arguments(row) for row in rows])

    def _arguments(self, values: Values) -> list[Any]:
        return [values[name] if name in values else self._literals[name] for name in self._names]


class _Prepared:
    """PostgreSQL's: prepared on the server once, which saves parsing and one of two round trips each time."""

    def __init__(self, text: SQLCompiler, driver: Any) -> None:
        self._statement = driver.prepare(text.string)
        self._literals = _literals(text)

    def fetch(self, values: Values) -> Rows:
        rows: Rows = self._statement.run(**self._literals, **values)
        return rows

    def change(self, rows: Sequence[Values]) -> None:
        for row in rows:
            self._statement.run(**self._literals, **row)


def _literals(text: SQLCompiler) -> Values:
    """What the statement itself brings along; the values of the others come with each call."""
    return {name: value for name, value in text.params.items() if value is not None}
