"""A workspace's secrets, each sealed in its row."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from skyspan.model.secret import Secret
from skyspan.store.codec import place
from skyspan.store.database import Transaction
from skyspan.store.tables import secrets

_WORKSPACE = secrets.c.workspace == sa.bindparam("of_workspace")
_NAMES = sa.select(secrets.c.name).where(_WORKSPACE).order_by(secrets.c.name)
_FIND = sa.select(secrets.c.value_sealed).where(_WORKSPACE, secrets.c.name == sa.bindparam("of_name"))
_REMOVE = sa.delete(secrets).where(_WORKSPACE, secrets.c.name == sa.bindparam("of_name"))


def put_secret(tx: Transaction, workspace: str, name: str, value: Secret) -> None:
    """Set it, replacing an older value."""
    where = place("secrets", (workspace, name), "value")
    row = {
        "workspace": workspace,
        "name": name,
        "updated_at": tx.clock.now(),
        "value_sealed": tx.codec.seal_bytes(workspace, where, value.reveal().encode(errors="surrogatepass")),
    }
    tx.put(secrets, [row])


def secret_names(tx: Transaction, workspace: str) -> Sequence[str]:
    """The names, sorted."""
    return list(tx.execute(_NAMES, {"of_workspace": workspace}).scalars())


def find_secret(tx: Transaction, workspace: str, name: str) -> Secret | None:
    """The secret; raises SealError when it cannot be opened."""
    sealed = tx.execute(_FIND, {"of_workspace": workspace, "of_name": name}).scalar()
    if sealed is None:
        return None
    data = tx.codec.open_bytes(workspace, place("secrets", (workspace, name), "value"), sealed)
    return Secret(data.decode(errors="surrogatepass"))


def remove_secret(tx: Transaction, workspace: str, name: str) -> bool:
    """Forget it; whether it was there."""
    return tx.execute(_REMOVE, {"of_workspace": workspace, "of_name": name}).rowcount > 0
