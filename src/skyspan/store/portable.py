"""The store as records that any database can be filled with: a head, then each table's columns and rows.

Bytes are `{"b": BASE64}`; everything else is JSON's own. Rows of a parent table come before those of its children.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from skyspan.contracts.upkeep import Write
from skyspan.model.error import StoreCorruptError, StoreError, StoreUnavailableError, UsageError
from skyspan.store.database import Transaction
from skyspan.store.leases import held, refusal
from skyspan.store.paging import rows_of
from skyspan.store.schema import migrate
from skyspan.store.tables import HEAD, REVISIONS, TABLES, leases, versions

_EPOCH_LEAP = 1000
"""Epochs go on so far above those of the backup: whoever took a lease since then can never write again."""

_ROWS = 500
"""Rows inserted at once."""


def dump(tx: Transaction, begin: Callable[[], Write]) -> None:
    """Write everything, as the open transaction sees it."""
    write = begin()
    write({"revision": HEAD})
    for table in _data_tables():
        write({"table": table.name, "columns": [column.name for column in table.c]})
        for row in rows_of(tx, table):
            write([_portable(value) for value in row])


def is_empty(tx: Transaction) -> bool:
    """Whether no table holds a row."""
    return not any(tx.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first() for table in _data_tables())


def load(tx: Transaction, records: Callable[[], Iterable[Any]], replace: bool, now: float) -> int:
    """Fill the database; raises before anything is written when it must not be."""
    if not is_empty(tx):
        if not replace:
            raise UsageError("the store is not empty", hint="--replace gives up all that it holds")
        for lease, since in held(tx, now):
            raise refusal(lease, since)
    source = iter(records())
    revision = _revision(next(source, None))
    epochs = {(row.workspace, row.deployment): row.epoch for row in tx.execute(sa.select(leases)).all()}
    TABLES.drop_all(tx.connection)
    migrate(tx.connection, revision)
    filled = _fill(tx, source)
    if revision != HEAD:
        migrate(tx.connection, HEAD)
    _leap(tx, epochs, now)
    return filled


def _data_tables() -> list[sa.Table]:
    return [table for table in TABLES.sorted_tables if table is not versions]


def _revision(head: Any) -> str:
    revision = head.get("revision") if isinstance(head, dict) else None
    if not isinstance(revision, str):
        raise StoreCorruptError("the backup does not begin with a revision", hint="take another backup file")
    if revision not in REVISIONS:
        raise StoreUnavailableError(
            "the backup was made by a newer Skyspan",
            detail=f"Its revision is {revision}; this Skyspan knows those up to {HEAD}.",
            hint="Upgrade Skyspan.",
        )
    return revision


def _fill(tx: Transaction, records: Iterator[Any]) -> int:
    """Insert all rows; how many."""
    # The tables as they are at the backup's revision, which may be an older one.
    found = sa.MetaData()
    insert: sa.Insert | None = None
    columns: Sequence[str] = ()
    waiting: list[dict[str, Any]] = []
    total = 0
    for record in records:
        if isinstance(record, dict):
            _flush(tx, insert, waiting)
            table = sa.Table(_known(record["table"]), found, autoload_with=tx.connection)
            insert, columns = sa.insert(table), record["columns"]
            continue
        waiting.append({name: _restored(value) for name, value in zip(columns, record, strict=True)})
        total += 1
        if len(waiting) >= _ROWS:
            _flush(tx, insert, waiting)
    _flush(tx, insert, waiting)
    return total


def _flush(tx: Transaction, insert: sa.Insert | None, waiting: list[dict[str, Any]]) -> None:
    if not waiting:
        return
    if insert is None:
        raise StoreCorruptError("the backup has rows of no table", hint="take another backup file")
    try:
        tx.execute(insert, waiting)
    except sa.exc.IntegrityError as problem:
        raise StoreError("rows of the backup contradict each other", detail=str(problem.orig)) from problem
    waiting.clear()


def _known(name: str) -> str:
    if name not in TABLES.tables or name == versions.name:
        raise StoreCorruptError(f"the backup has an unknown table {name}", hint="take another backup file")
    return name


def _leap(tx: Transaction, before: dict[tuple[str, str], int], now: float) -> None:
    """No lease of the backup is held any more, and every epoch is above all that were ever given out."""
    expired = sa.case((leases.c.expires_at > now, now), else_=leases.c.expires_at)
    tx.execute(sa.update(leases).values(epoch=leases.c.epoch + _EPOCH_LEAP, expires_at=expired))
    for row in tx.execute(sa.select(leases)).all():
        known = before.pop((row.workspace, row.deployment), 0)
        if known >= row.epoch:
            mine = (leases.c.workspace == row.workspace, leases.c.deployment == row.deployment)
            tx.execute(sa.update(leases).where(*mine).values(epoch=known + 1))
    for (workspace, deployment), epoch in before.items():
        vacant = {"held": False, "owner": "", "run_id": "", "verb": "", "acquired_at": 0.0, "expires_at": 0.0}
        tx.execute(sa.insert(leases), {"workspace": workspace, "deployment": deployment, "epoch": epoch + 1, **vacant})


def _portable(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return {"b": base64.b64encode(bytes(value)).decode()}
    return value


def _restored(value: Any) -> Any:
    return base64.b64decode(value["b"], validate=True) if isinstance(value, dict) else value
