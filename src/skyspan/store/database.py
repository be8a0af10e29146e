"""One connection to the database and the transactions on it: begun, committed, repeated or given up."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import sqlalchemy as sa

from skyspan.contracts.context import Clock
from skyspan.contracts.store import Sealer
from skyspan.model.error import StoreUnavailableError
from skyspan.store.codec import Codec
from skyspan.store.flavour import Flavour, Trouble
from skyspan.store.schema import ensure_schema
from skyspan.store.statements import Statements

_ATTEMPTS = 3
"""The first, one after a dropped idle connection, one more after a deadlock."""

Row: TypeAlias = "sa.Row[*tuple[Any, ...]]"
"""A row of any columns."""


class Transaction:
    """What an operation works with: the connection inside an open transaction, the sealing and the time."""

    def __init__(self, connection: sa.Connection, codec: Codec, clock: Clock) -> None:
        self.connection = connection
        self.codec = codec
        self.clock = clock
        self.driver = connection.connection.dbapi_connection
        self._statements = Statements(connection)

    def execute(self, statement: sa.Executable, values: Any = None) -> sa.CursorResult[*tuple[Any, ...]]:
        """Run a statement in SQLAlchemy's own way."""
        return self.connection.execute(statement, values)

    def fetch(self, statement: sa.Executable, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """All rows of a query, as the driver gives them: texts, numbers and bytes, in the order of the columns."""
        return self._statements.compiled(statement).fetch(values)

    def change(self, statement: sa.Executable, *rows: Mapping[str, Any]) -> None:
        """Run a statement that returns nothing, once for each of `rows`."""
        self._statements.compiled(statement).change(rows)

    def put(self, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert or replace whole rows."""
        if rows:
            self.change(self._statements.upsert(table), *rows)

    def add_missing(self, table: sa.Table, row: Mapping[str, Any]) -> bool:
        """Insert a whole row unless there is one with the same key; whether there was none."""
        return self.execute(self._statements.insert_missing(table), row).rowcount > 0


Work = Callable[[Transaction], Any]


class WholeGroupError(Exception):
    """The transaction failed for a reason of no work in particular: trying each alone is no use, or may write twice."""

    def __init__(self, problem: BaseException) -> None:
        super().__init__(str(problem))
        self.problem = problem


class _CannotBeginError(Exception):
    """No transaction could be begun."""

    def __init__(self, problem: BaseException) -> None:
        super().__init__(str(problem))
        self.problem = problem


class _InDoubtError(Exception):
    """The connection was lost when the commit was already sent."""

    def __init__(self, mark: str) -> None:
        super().__init__(mark)
        self.mark = mark


class Database:
    """The store's database as one thread uses it. It connects at first use, and again when the connection was lost."""

    def __init__(self, flavour: Flavour, sealer: Sealer, clock: Clock) -> None:
        self._flavour = flavour
        self._codec = Codec(sealer)
        self._clock = clock
        self._transaction: Transaction | None = None

    @property
    def where(self) -> str:
        """The store in words fit for a message."""
        return self._flavour.where

    def transact(self, works: Sequence[Work], *, writes: bool) -> list[Any]:
        """Do all works in one transaction; return their results once it is durable.

        What a work raises, or a store error, means that nothing was written; so does WholeGroupError, except where its
        problem says that nobody can tell.
        """
        attempt = 1
        while True:
            results: list[Any] = []
            try:
                self._attempt(works, writes, results)
            except _InDoubtError as doubt:
                if self._was_committed(doubt):
                    return results
            except _CannotBeginError as begin:
                trouble = self._given_up(begin.problem)
                if not _worth_repeating(trouble, attempt):
                    raise WholeGroupError(trouble.error if trouble else begin.problem) from begin.problem
            except Exception as problem:
                trouble = self._given_up(problem)
                if not _worth_repeating(trouble, attempt):
                    if trouble is None:
                        raise
                    raise (WholeGroupError(trouble.error) if trouble.lost else trouble.error) from problem
            else:
                return results
            attempt += 1

    def settle(self) -> None:
        """Wait until every writing transaction that has begun before, in any process, has ended."""
        self._outside(self._flavour.settle)

    def compact(self) -> None:
        """Give free space back."""
        self._outside(self._flavour.compact)

    def close(self) -> None:
        """Close the connection, in whatever state it is; never raises."""
        if self._transaction is not None:
            _drop(self._transaction.driver)
            self._transaction = None

    def _outside(self, work: Callable[[sa.Connection], None]) -> None:
        try:
            work(self._open().connection)
        except TimeoutError as problem:
            raise StoreUnavailableError(
                f"another process keeps a transaction open on the store {self.where}",
                hint="Wait for it to end, then run the command again: it goes on where it stopped.",
            ) from problem
        except Exception as problem:
            trouble = self._given_up(problem)
            if trouble is None:
                raise
            raise trouble.error from problem

    def _attempt(self, works: Sequence[Work], writes: bool, results: list[Any]) -> None:
        try:
            transaction = self._open()
            self._flavour.begin(transaction.connection, writes=writes)
        except Exception as problem:
            raise _CannotBeginError(problem) from problem
        for work in works:
            results.append(work(transaction))
        mark = self._flavour.mark(transaction.connection) if writes else None
        try:
            transaction.connection.exec_driver_sql("COMMIT")
        except Exception as problem:
            trouble = self._flavour.trouble(problem)
            if mark is not None and trouble is not None and trouble.lost:
                raise _InDoubtError(mark) from problem
            raise

    def _open(self) -> Transaction:
        if self._transaction is None:
            connection = self._flavour.connect()
            # Out of the pool's hands: it would log a traceback when a lost connection cannot be closed in order.
            driver = connection.connection.dbapi_connection
            connection.detach()
            try:
                ensure_schema(connection, self._flavour)
            except BaseException:
                _drop(driver)
                raise
            self._transaction = Transaction(connection, self._codec, self._clock)
        return self._transaction

    def _given_up(self, problem: BaseException) -> Trouble | None:
        """Undo the open transaction, or drop the connection where that does not work any more."""
        trouble = self._flavour.trouble(problem)
        if self._transaction is not None:
            if trouble is not None and trouble.lost:
                self.close()
            else:
                try:
                    self._roll_back(self._transaction)
                except Exception:
                    self.close()
        return trouble

    @staticmethod
    def _roll_back(transaction: Transaction) -> None:
        # SQLite ends a transaction by itself after a full disk and the like; then there is nothing to roll back.
        if getattr(transaction.driver, "in_transaction", True):
            transaction.connection.exec_driver_sql("ROLLBACK")

    def _was_committed(self, doubt: _InDoubtError) -> bool:
        """Ask a new connection how the transaction ended; raises WholeGroupError when there is no answer."""
        self.close()
        try:
            known = self._flavour.committed(self._open().connection, doubt.mark)
        except Exception as problem:
            self._given_up(problem)
            known = None
        if known is None:
            lost = StoreUnavailableError(
                f"the connection to the store {self.where} was lost during a write, and nobody knows whether it counts",
                detail=str(doubt.__cause__ or ""),
                hint="When the server is back, repeat the command: it goes on from what was written.",
            )
            raise WholeGroupError(lost) from doubt
        return known


def _drop(driver: Any) -> None:
    with contextlib.suppress(Exception):
        driver.close()


def _worth_repeating(trouble: Trouble | None, attempt: int) -> bool:
    if trouble is None or attempt >= _ATTEMPTS:
        return False
    return trouble.again or (trouble.lost and attempt == 1)
