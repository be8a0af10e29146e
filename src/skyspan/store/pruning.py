"""Removing old history, and knowing what is too young or too much needed for that."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from skyspan.contracts.upkeep import Pruned, Retention
from skyspan.model.address import DeploymentAddress
from skyspan.model.lifecycle import RunStatus, Verb
from skyspan.store.database import Row, Transaction
from skyspan.store.tables import deployments, events, runs

_PORTION = 200


def prune(tx: Transaction, address: DeploymentAddress, retention: Retention) -> Pruned:
    """Remove the runs that `retention` lets go, with all that belongs to them."""
    gone = [row.id for row in _removable(tx, address, retention)]
    lost = 0
    for start in range(0, len(gone), _PORTION):
        part = gone[start : start + _PORTION]
        lost += tx.execute(sa.select(sa.func.count()).where(events.c.run_id.in_(part))).scalar() or 0
        # Events, logs and the rest go with their run by the foreign keys.
        tx.execute(sa.delete(runs).where(runs.c.id.in_(part)))
    return Pruned(address, len(gone), lost)


def _removable(tx: Transaction, address: DeploymentAddress, retention: Retention) -> Sequence[Row]:
    mine = (runs.c.workspace == address.workspace, runs.c.deployment == address.name)
    newest_first = sa.select(runs.c.id, runs.c.verb, runs.c.status, runs.c.started_at).where(*mine)
    rows = tx.execute(newest_first.order_by(runs.c.started_at.desc(), runs.c.id.desc())).all()
    needed = _needed(tx, address, rows)
    return [row for place, row in enumerate(rows) if row.id not in needed and _may_go(retention, place, row.started_at)]


def _needed(tx: Transaction, address: DeploymentAddress, rows: Sequence[Row]) -> set[str]:
    """The newest run, the newest that could change something (`status` shows it), and all that have not ended: their
    intents are what recovery works from."""
    last = tx.execute(
        sa.select(deployments.c.last_run).where(
            deployments.c.workspace == address.workspace, deployments.c.name == address.name
        )
    ).scalar()
    writing = next((row.id for row in rows if Verb(row.verb).writes), None)
    open_ones = {row.id for row in rows if row.status in (RunStatus.RUNNING.value, RunStatus.LOST.value)}
    return {run for run in (last, writing, rows[0].id if rows else None) if run} | open_ones


def _may_go(retention: Retention, place: int, started_at: float) -> bool:
    beyond = retention.keep_runs is not None and place >= retention.keep_runs
    old = retention.before is not None and started_at < retention.before
    return beyond or old
