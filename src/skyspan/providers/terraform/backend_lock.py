"""Reads from a tool's words who holds the state's lock, and proves whether that is a command of ours that has died."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from skyspan.providers.terraform.holder import moment
from skyspan.providers.terraform.journal import Journal

_FIELD = re.compile(r"^[\s│]*(ID|Operation|Who|Created|Info):[ \t]*(.*?)[ \t]*$", re.MULTILINE)
_OTHER = re.compile(r"already locked: ID=(\S+)")
_MOMENT = re.compile(r"^(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(\.\d+)? ?(?:Z|\+0000 UTC)$")


@dataclass(frozen=True, slots=True)
class BackendLock:
    """A lock as the tools tell of it. `created` is in seconds since the epoch, 0 where it was not told.

    `skyspan` is what our endpoint wrote into it about its holder.
    """

    id: str
    who: str = ""
    operation: str = ""
    created: float = 0.0
    skyspan: str = ""

    def __str__(self) -> str:
        if self.skyspan:
            return self.skyspan
        doing = {"OperationTypeApply": "apply", "OperationTypePlan": "plan"}.get(self.operation, self.operation)
        parts = [part for part in (doing, f"lock {self.id}") if part]
        since = f" since {moment(self.created)}" if self.created else ""
        return f"{self.who or 'somebody else'}{since} ({', '.join(parts)})"


def told_lock(info: bytes) -> BackendLock | None:
    """The lock whose JSON the tools exchange with a backend; None when it is none."""
    try:
        found = json.loads(info)
    except ValueError:
        return None
    return _lock({str(key): value for key, value in found.items()}) if isinstance(found, dict) else None


def said_lock(said: str) -> BackendLock | None:
    """The lock that a tool met, by what it said; None when it told of none.

    Measured: on a locked HTTP backend Terraform 1.11 shows its own lock and tells of the other only the ID.
    """
    lock = _lock(dict(_FIELD.findall(said)))
    other = _OTHER.search(said)
    if other and (lock is None or lock.id != other[1]):
        return BackendLock(other[1])
    return lock


def is_left_by(lock: BackendLock, journal: Journal) -> bool:
    """Whether the lock is that of the journal's last attempt, which is known to be dead.

    The journal's time moves on from that attempt's beginning only by messages about resources, which it gives while it
    holds the lock; and it died without giving it back. So a lock that was made in between and still stands is its own:
    nobody else could get one after its own until somebody broke that, which was later than the last message or else it
    would have got no further. Both times are of the same machine.
    """
    if not journal.holders or not (journal.made or journal.begun):
        return False
    last = journal.holders[-1]
    host = lock.who.rpartition("@")[2]
    return bool(last.since) and host == last.machine.host and last.since < lock.created < journal.at


def _lock(fields: dict[str, Any]) -> BackendLock | None:
    identity = str(fields.get("ID") or "")
    if not identity:
        return None
    told = [str(fields.get(name) or "") for name in ("Who", "Operation", "Created", "Info")]
    return BackendLock(identity, told[0], told[1], _seconds(told[2]), told[3])


def _seconds(text: str) -> float:
    found = _MOMENT.match(text)
    if found is None:
        return 0.0
    fraction = (found[3] or ".0")[:7]
    return datetime.fromisoformat(f"{found[1]}T{found[2]}{fraction.ljust(7, '0')}+00:00").timestamp()
