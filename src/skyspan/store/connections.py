"""A workspace's templates of connections, each sealed in its row."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from skyspan.contracts.store import ConnectionRecord
from skyspan.store.codec import place
from skyspan.store.database import Row, Transaction
from skyspan.store.tables import connections

_WORKSPACE = connections.c.workspace == sa.bindparam("of_workspace")
_NAMED = connections.c.name == sa.bindparam("of_name")
_LIST = sa.select(connections).where(_WORKSPACE).order_by(connections.c.name)
_FIND = sa.select(connections).where(_WORKSPACE, _NAMED)
_REMOVE = sa.delete(connections).where(_WORKSPACE, _NAMED)


def put_connection(tx: Transaction, workspace: str, name: str, text: str, replace: bool) -> bool:
    """Write it, in the place of an older one only with `replace`; whether it was written."""
    row = {
        "workspace": workspace,
        "name": name,
        "updated_at": tx.clock.now(),
        "text_sealed": tx.codec.seal_bytes(workspace, _place(workspace, name), text.encode(errors="surrogatepass")),
    }
    if not replace:
        return tx.add_missing(connections, row)
    tx.put(connections, [row])
    return True


def list_connections(tx: Transaction, workspace: str) -> Sequence[ConnectionRecord]:
    """All of a workspace, by name; raises SealError when one cannot be opened."""
    return [_record(tx, row) for row in tx.execute(_LIST, {"of_workspace": workspace}).all()]


def find_connection(tx: Transaction, workspace: str, name: str) -> ConnectionRecord | None:
    """The template; raises SealError when it cannot be opened."""
    row = tx.execute(_FIND, {"of_workspace": workspace, "of_name": name}).first()
    return None if row is None else _record(tx, row)


def remove_connection(tx: Transaction, workspace: str, name: str) -> bool:
    """Forget it; whether it was there."""
    return tx.execute(_REMOVE, {"of_workspace": workspace, "of_name": name}).rowcount > 0


def _record(tx: Transaction, row: Row) -> ConnectionRecord:
    data = tx.codec.open_bytes(row.workspace, _place(row.workspace, row.name), row.text_sealed)
    return ConnectionRecord(row.workspace, row.name, data.decode(errors="surrogatepass"), row.updated_at)


def _place(workspace: str, name: str) -> str:
    return place("connections", (workspace, name), "text")
