"""Leases: who may act on a deployment. And requests to cancel what somebody else runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa

from skyspan.contracts.store import Lease
from skyspan.model.address import DeploymentAddress
from skyspan.model.error import FencedError, NotFoundError, RefusedError
from skyspan.model.lifecycle import Verb
from skyspan.store.codec import plain, reading
from skyspan.store.database import Row, Transaction
from skyspan.store.tables import cancel_requests, leases, runs

_ROW = (
    leases.c.workspace == sa.bindparam("of_workspace"),
    leases.c.deployment == sa.bindparam("of_deployment"),
)
_FIND = sa.select(leases).where(*_ROW)
_LIVING = sa.select(leases.c.epoch).where(*_ROW, leases.c.held.is_(True)).with_for_update(read=True)
_HELD = sa.select(leases).where(leases.c.held.is_(True), leases.c.expires_at > sa.bindparam("now"))
_VACANT: Mapping[str, Any] = MappingProxyType(
    {"epoch": 0, "held": False, "owner": "", "run_id": "", "verb": "", "acquired_at": 0.0, "expires_at": 0.0}
)
# The condition is checked again under the row's lock: of two processes exactly one sees it true.
_TAKE = (
    sa.update(leases)
    .where(*_ROW, sa.or_(leases.c.held.is_(False), leases.c.expires_at <= sa.bindparam("now")))
    .values(
        epoch=leases.c.epoch + 1,
        held=True,
        owner=sa.bindparam("new_owner"),
        run_id=sa.bindparam("new_run"),
        verb=sa.bindparam("new_verb"),
        acquired_at=sa.bindparam("now"),
        expires_at=sa.bindparam("until"),
    )
    .returning(leases.c.epoch)
)
_OURS = (*_ROW, leases.c.epoch == sa.bindparam("our_epoch"), leases.c.held.is_(True))
_RENEW = sa.update(leases).where(*_OURS).values(expires_at=sa.bindparam("until"))
_RELEASE = sa.update(leases).where(*_OURS).values(held=False)
_RUN_EXISTS = sa.select(runs.c.id).where(runs.c.id == sa.bindparam("run_id"))
_CANCEL = sa.select(cancel_requests.c.requested_by).where(cancel_requests.c.run_id == sa.bindparam("run_id"))


def acquire(tx: Transaction, lease: Lease, now: float) -> Lease:
    """Take the lease with the next epoch; raises RefusedError while somebody holds it."""
    values = {
        **_key(lease.deployment),
        "now": now,
        "new_owner": plain(lease.owner),
        "new_run": lease.run_id,
        "new_verb": lease.verb.value,
        "until": lease.expires_at,
    }
    if tx.execute(_FIND, _key(lease.deployment)).first() is None:
        key = {"workspace": lease.deployment.workspace, "deployment": lease.deployment.name}
        tx.add_missing(leases, {**key, **_VACANT})
    epoch = tx.execute(_TAKE, values).scalar()
    if epoch is None:
        row = tx.execute(_FIND, _key(lease.deployment)).one()
        raise refusal(_lease(lease.deployment, row), row.acquired_at)
    return replace(lease, epoch=epoch)


def renew(tx: Transaction, lease: Lease, expires_at: float) -> Lease:
    """Keep it longer; raises FencedError when it is not ours any more."""
    values = {**_key(lease.deployment), "our_epoch": lease.epoch, "until": expires_at}
    if tx.execute(_RENEW, values).rowcount != 1:
        raise fenced(tx, lease.deployment, lease.epoch)
    return replace(lease, expires_at=expires_at)


def release(tx: Transaction, lease: Lease) -> None:
    """Give it up, if it is still ours."""
    tx.execute(_RELEASE, {**_key(lease.deployment), "our_epoch": lease.epoch})


def holder(tx: Transaction, address: DeploymentAddress) -> Lease | None:
    """Who holds it, perhaps expired."""
    row = tx.execute(_FIND, _key(address)).first()
    if row is None or not row.held:
        return None
    return _lease(address, row)


def held(tx: Transaction, now: float) -> Sequence[tuple[Lease, float]]:
    """All leases that are held and not expired, each with when it was taken."""
    rows = tx.execute(_HELD, {"now": now}).all()
    return [(_lease(DeploymentAddress(row.workspace, row.deployment), row), row.acquired_at) for row in rows]


def fence(tx: Transaction, address: DeploymentAddress, epoch: int) -> None:
    """Raise FencedError unless the lease of that epoch is held; nobody can take over before the transaction ends.

    One that has run out and that nobody took may write: clocks decide who may take over, never who may write."""
    rows = tx.fetch(_LIVING, _key(address))
    if not rows or rows[0][0] != epoch:
        raise fenced(tx, address, epoch)


def guard(tx: Transaction, address: DeploymentAddress, lease: Lease) -> None:
    """Raise FencedError unless `lease` is held and covers `address`."""
    if lease.deployment != address:
        raise FencedError(f"the lease of {lease.deployment} does not cover {address}; nothing was written")
    fence(tx, address, lease.epoch)


def request_cancel(tx: Transaction, run_id: str, requested_by: str) -> None:
    """Note who asked first for the run's cancellation."""
    if tx.execute(_RUN_EXISTS, {"run_id": run_id}).scalar() is None:
        raise NotFoundError(f"there is no run {run_id}")
    row: Mapping[str, Any] = {"run_id": run_id, "requested_by": plain(requested_by), "at": tx.clock.now()}
    tx.add_missing(cancel_requests, row)


def cancel_requested(tx: Transaction, run_id: str) -> str | None:
    """Who asked for the run's cancellation."""
    requested_by: str | None = tx.execute(_CANCEL, {"run_id": run_id}).scalar()
    return requested_by


def _key(address: DeploymentAddress) -> dict[str, str]:
    return {"of_workspace": address.workspace, "of_deployment": address.name}


def _lease(address: DeploymentAddress, row: Row) -> Lease:
    with reading(f"the lease of {address}"):
        return Lease(address, row.owner, row.epoch, row.expires_at, row.run_id, Verb(row.verb))


def refusal(lease: Lease, acquired_at: float) -> RefusedError:
    """Why somebody else has to wait for the holder of `lease`."""
    since = datetime.fromtimestamp(acquired_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return RefusedError(
        f"{lease.owner} holds {lease.deployment}: {lease.verb.value}, run {lease.run_id}, since {since}",
        detail="A lease that is not renewed expires by itself.",
        hint=f"Wait for it, or ask it to stop: skyspan cancel {lease.deployment.name}",
    )


def fenced(tx: Transaction, address: DeploymentAddress, epoch: int) -> FencedError:
    """Why `epoch` is refused."""
    row = tx.execute(_FIND, _key(address)).first()
    if row is None or row.epoch <= epoch:
        detail = "The lease was given up, or was never taken."
    else:
        detail = f"The newest is {row.epoch}" + (f", held by {row.owner} for {row.verb}." if row.held else ".")
    return FencedError(
        f"the lease of {address} with epoch {epoch} is not valid any more; nothing was written",
        detail=detail,
        hint=f"See what the other one did: skyspan runs {address.name}",
    )
