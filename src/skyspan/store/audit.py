"""Who saw what, and who was refused as not holding the lease any more: rows that are only ever added."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Sequence

import sqlalchemy as sa

from skyspan.contracts.upkeep import Access
from skyspan.model.address import DeploymentAddress
from skyspan.model.error import FencedError
from skyspan.store.codec import plain
from skyspan.store.database import Transaction
from skyspan.store.tables import audit

_ADD = sa.insert(audit)


def add(tx: Transaction, access: Access) -> None:
    """Remember it."""
    row = {
        "id": secrets.token_hex(8),
        "workspace": access.workspace,
        "deployment": access.deployment,
        "at": access.at,
        "who": plain(access.who),
        "what": plain(access.what),
        "detail": plain(access.detail),
    }
    tx.change(_ADD, row)


def add_refusal(tx: Transaction, address: DeploymentAddress, epoch: int, what: str, error: FencedError) -> None:
    """Remember that an engine wanted to write under an epoch that is over."""
    detail = f"{what} under epoch {epoch}: {error.detail or error.summary}"
    who = f"process {os.getpid()} on {socket.gethostname()}"
    add(tx, Access(address.workspace, tx.clock.now(), who, "stale write refused", address.name, detail))


def newest(tx: Transaction, workspace: str, deployment: str | None, limit: int) -> Sequence[Access]:
    """Those of a workspace, or of one deployment, newest first."""
    query = sa.select(audit).where(audit.c.workspace == workspace)
    if deployment is not None:
        query = query.where(audit.c.deployment == deployment)
    rows = tx.execute(query.order_by(audit.c.at.desc(), audit.c.id).limit(limit)).all()
    return [Access(row.workspace, row.at, row.who, row.what, row.deployment, row.detail) for row in rows]
