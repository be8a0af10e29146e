"""A deployment on its way out of one store and into another."""

from __future__ import annotations

import sqlalchemy as sa

from skyspan.contracts.store import Lease
from skyspan.contracts.upkeep import Portion
from skyspan.model.address import DeploymentAddress
from skyspan.store.connections import put_connection
from skyspan.store.database import Transaction
from skyspan.store.deployments import (
    find_deployment,
    get_kept,
    list_stages,
    put_kept,
    put_stages,
    save_deployment,
)
from skyspan.store.leases import fence
from skyspan.store.secrets import put_secret
from skyspan.store.tables import kept, stages


def take_out(tx: Transaction, address: DeploymentAddress) -> Portion | None:
    """The deployment with its stages' records and what they keep."""
    record = find_deployment(tx, address)
    if record is None:
        return None
    mine = (kept.c.workspace == address.workspace, kept.c.deployment == address.name)
    held: dict[str, dict[str, bytes]] = {}
    for row in tx.execute(sa.select(kept.c.stage, kept.c.name).where(*mine).order_by(kept.c.stage, kept.c.name)).all():
        data = get_kept(tx, address.stage(row.stage), row.name)
        held.setdefault(row.stage, {})[row.name] = data or b""
    return Portion(record, tuple(list_stages(tx, address)), held)


def take_in(tx: Transaction, portion: Portion, lease: Lease) -> None:
    """Record the deployment in the place of what was recorded under its name; raises FencedError for a stale lease."""
    address = portion.deployment.address
    fence(tx, address, lease.epoch)
    for table in (stages, kept):
        tx.execute(sa.delete(table).where(table.c.workspace == address.workspace, table.c.deployment == address.name))
    save_deployment(tx, portion.deployment)
    put_stages(tx, portion.stages)
    for stage, items in portion.kept.items():
        for name, data in items.items():
            put_kept(tx, address.stage(stage), lease.epoch, name, data)
    for name, secret in portion.secrets.items():
        put_secret(tx, address.workspace, name, secret)
    for name, text in portion.connections.items():
        put_connection(tx, address.workspace, name, text, replace=True)
