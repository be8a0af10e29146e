"""Giving up old history: which runs go, never what destroy, status or recovery need."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from skyspan.app.documents import Document
from skyspan.app.queries import find_deployment
from skyspan.app.session import Session
from skyspan.contracts.upkeep import Retention
from skyspan.model.error import UsageError

_UNITS: Mapping[str, float] = MappingProxyType({"h": 3600.0, "d": 86400.0, "w": 7 * 86400.0})


def retention_of(session: Session, keep_runs: int | None, older_than: str | None) -> Retention:
    """What the two options mean now; raises UsageError unless one of them is given."""
    if keep_runs is None and older_than is None:
        raise UsageError("say what may go", hint="--keep-runs N, or --older-than 30d (h, d or w)")
    if keep_runs is not None and keep_runs < 1:
        raise UsageError("the newest run always stays", hint="--keep-runs 1 keeps no other")
    if older_than is None:
        return Retention(keep_runs)
    match = re.fullmatch(r"(\d{1,6})([hdw])", older_than)
    if match is None:
        raise UsageError(
            f"--older-than takes a number of hours, days or weeks, not {older_than!r}", hint="30d, 12h, 8w"
        )
    return Retention(keep_runs, session.clock.now() - int(match[1]) * _UNITS[match[2]])


async def prune(session: Session, name: str | None, retention: Retention) -> Document:
    """Remove old runs of one deployment, or of all in the workspace, with their events and logs."""
    if name is None:
        records = await session.store.deployments(session.settings.workspace)
    else:
        records = [await find_deployment(session, name)]
    pruned = [await session.upkeep.prune(record.address, retention) for record in records]
    if any(item.runs for item in pruned):
        await session.upkeep.compact()
    return {
        "pruned": [
            {"deployment": item.deployment.name, "runs": item.runs, "events": item.events}
            for item in pruned
            if item.runs or name is not None
        ]
    }
