"""Who saw or took what is secret: remembered before it is shown, so that nobody sees what cannot be remembered."""

from __future__ import annotations

from skyspan.app.documents import Document, timestamp
from skyspan.app.session import Session
from skyspan.contracts.upkeep import Access


async def remember(session: Session, what: str, deployment: str = "", detail: str = "") -> None:
    """Remember that the person at work is about to do `what`. Raises StoreError when that cannot be."""
    access = Access(session.settings.workspace, session.clock.now(), session.person, what, deployment, detail)
    await session.upkeep.note_access(access)


async def audit(session: Session, deployment: str | None, limit: int) -> Document:
    """What was remembered, newest first."""
    found = await session.upkeep.accesses(session.settings.workspace, deployment, limit)
    return {
        "accesses": [
            {
                "at": timestamp(item.at),
                "who": item.who,
                "what": item.what,
                "workspace": item.workspace,
                "deployment": item.deployment or None,
                "detail": item.detail,
            }
            for item in found
        ]
    }
