"""Every sealed value of the store: found by the convention of `tables`, opened, or sealed under a newer key.

A column named `X_sealed` of a row with the key `K…`, whose first part is the workspace, is bound to `TABLE|K…|X`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import sqlalchemy as sa

from skyspan.model.error import SealError
from skyspan.store.codec import place
from skyspan.store.database import Row, Transaction
from skyspan.store.paging import rows_of
from skyspan.store.tables import TABLES

_SUFFIX = "_sealed"


@dataclass(frozen=True, slots=True)
class Sealed:
    """One sealed value, where it is and to what it is bound."""

    column: sa.Column[bytes]
    key: tuple[str, ...]
    data: bytes = field(repr=False)

    @property
    def workspace(self) -> str:
        return self.key[0]

    @property
    def place(self) -> str:
        return place(self.column.table.name, self.key, self.column.name.removesuffix(_SUFFIX))


def sealed_columns() -> tuple[sa.Column[bytes], ...]:
    """All columns that hold ciphertext."""
    return tuple(column for table in TABLES.sorted_tables for column in table.c if column.name.endswith(_SUFFIX))


def sealed_values(tx: Transaction) -> Iterator[Sealed]:
    """All of them, of every workspace."""
    for table in TABLES.sorted_tables:
        columns = [column for column in sealed_columns() if column.table is table]
        if not columns:
            continue
        for row in rows_of(tx, table):
            yield from (_sealed(row, column) for column in columns if row._mapping[column] is not None)


def opens(tx: Transaction, sealed: Sealed) -> SealError | None:
    """Why the value does not open, or None."""
    try:
        tx.codec.open_bytes(sealed.workspace, sealed.place, sealed.data)
    except SealError as error:
        return error
    return None


def reseal(tx: Transaction, workspace: str, current: bytes, limit: int) -> int:
    """Seal up to `limit` values of the workspace anew that do not begin with `current`; how many were found."""
    found = 0
    for column in sealed_columns():
        if found >= limit:
            break
        for sealed in _older(tx, column, workspace, current, limit - found):
            _renew(tx, sealed)
            found += 1
    return found


def _older(tx: Transaction, column: sa.Column[bytes], workspace: str, current: bytes, limit: int) -> list[Sealed]:
    table = column.table
    assert isinstance(table, sa.Table)
    query = (
        sa.select(table)
        .where(
            table.c.workspace == workspace,
            column.is_not(None),
            sa.func.substr(column, 1, len(current), type_=sa.LargeBinary) != sa.literal(current, sa.LargeBinary),
        )
        .limit(limit)
    )
    return [_sealed(row, column) for row in tx.execute(query).all()]


def _renew(tx: Transaction, sealed: Sealed) -> None:
    """Replace the value, unless somebody else has done so since it was read."""
    table = sealed.column.table
    assert isinstance(table, sa.Table)
    data = tx.codec.open_bytes(sealed.workspace, sealed.place, sealed.data)
    renewed = tx.codec.seal_bytes(sealed.workspace, sealed.place, data)
    row = [column == value for column, value in zip(table.primary_key, sealed.key, strict=True)]
    tx.execute(sa.update(table).where(*row, sealed.column == sealed.data).values({sealed.column.name: renewed}))


def _sealed(row: Row, column: sa.Column[bytes]) -> Sealed:
    assert isinstance(column.table, sa.Table)
    return Sealed(column, tuple(row._mapping[part] for part in column.table.primary_key), bytes(row._mapping[column]))
