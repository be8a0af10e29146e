"""Reading a whole table in bounded portions, in the order of its key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import sqlalchemy as sa

from skyspan.store.database import Row, Transaction

PAGE = 200
"""Rows held in memory at once; one of log text may have a hundred kilobytes."""


def rows_of(tx: Transaction, table: sa.Table, *conditions: sa.ColumnElement[bool], page: int = PAGE) -> Iterator[Row]:
    """Every row of `table` that meets the conditions."""
    key = [*table.primary_key] or [*table.c]
    query = sa.select(table).where(*conditions).order_by(*key).limit(page)
    rows: Sequence[Row] = tx.execute(query).all()
    while rows:
        yield from rows
        if len(rows) < page:
            return
        last = [rows[-1]._mapping[column] for column in key]
        rows = tx.execute(query.where(_beyond(key, last))).all()


def _beyond(key: Sequence[sa.Column[object]], last: Sequence[object]) -> sa.ColumnElement[bool]:
    if len(key) == 1:
        return key[0] > last[0]
    return sa.tuple_(*key) > sa.tuple_(
        *(sa.literal(value, column.type) for column, value in zip(key, last, strict=True))
    )
