"""Decides every request to the state endpoint: who holds the lock, what state stands, what is refused. Pure.

The protocol: https://opentofu.org/docs/language/settings/backends/http/. Measured: the tools send their lock's ID with
every write as `?ID=`; OpenTofu sends the lock with UNLOCK, Terraform's force-unlock sends nothing (an empty chunked
body); 423 carries the holder, whom OpenTofu shows, while Terraform shows its own lock.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

SIZE_LIMIT = 256 * 1024 * 1024
"""Bytes of one state: it is held in memory, sealed and opened as a whole."""


class Method(StrEnum):
    """What can be asked."""

    GET = "GET"
    POST = "POST"
    LOCK = "LOCK"
    UNLOCK = "UNLOCK"


@dataclass(frozen=True, slots=True)
class Version:
    """A state as it came. `data` holds secrets in clear."""

    lineage: str
    serial: int
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Lock:
    """Who holds the state: the tool's own lock information, and the lease epoch under which it was given."""

    id: str
    info: bytes
    epoch: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """What stands: the state, the lock, the epoch that may write. A reading ledger refuses all but GET.

    `who` is written into the `Info` of every lock that is given, so that whoever is refused is told.
    """

    state: Version | None = None
    lock: Lock | None = None
    epoch: int = 0
    writable: bool = False
    who: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """A request; `lock_id` is the `?ID=` of a write."""

    method: str
    lock_id: str = ""
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class TakeLock:
    """To be made durable before the answer: the lock is held."""

    lock: Lock


@dataclass(frozen=True, slots=True)
class DropLock:
    """To be made durable before the answer: the lock is free."""


@dataclass(frozen=True, slots=True)
class Keep:
    """To be made durable before the answer: the new state; `before` is the one it replaces."""

    state: Version
    before: Version | None


Deed = TakeLock | DropLock | Keep


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer, and what has to be durable before it is given; `after` holds once it is.

    `why` says of a refusal, in words for the log, why it is one.
    """

    after: Ledger
    status: int
    body: bytes = field(default=b"", repr=False)
    deed: Deed | None = None
    why: str = ""


def decide(ledger: Ledger, request: Request) -> Decision:
    """What `request` does and gets."""
    match request.method:
        case Method.GET:
            return Decision(ledger, 200, ledger.state.data) if ledger.state else Decision(ledger, 404)
        case Method.LOCK | Method.UNLOCK | Method.POST if not ledger.writable:
            return _refuse(ledger, 403, "this command may only read the state")
        case Method.LOCK:
            return _lock(ledger, request)
        case Method.UNLOCK:
            return _unlock(ledger, request)
        case Method.POST:
            return _write(ledger, request)
    return _refuse(ledger, 405, f"{request.method} is not part of the protocol")


def read_version(data: bytes) -> Version | None:
    """The state in `data` by its head alone; None when it is none. Encrypted states have the same head."""
    document = _object(data)
    if document is None:
        return None
    lineage, serial = document.get("lineage"), document.get("serial")
    if not isinstance(lineage, str) or not lineage or not isinstance(serial, int) or isinstance(serial, bool):
        return None
    return Version(lineage, serial, data) if serial >= 0 else None


def _lock(ledger: Ledger, request: Request) -> Decision:
    info = _object(request.body)
    identity = info.get("ID") if info else None
    if not isinstance(identity, str) or not identity:
        return _refuse(ledger, 400, "a lock needs an ID")
    held = ledger.lock
    if held is not None and held.id != identity:
        return _locked(ledger, held, f"lock {held.id} is held")
    if held is not None and held.epoch != ledger.epoch:
        return _refuse(ledger, 409, "that lock was taken under another lease")
    # The same lock again: the answer to the first request was lost on its way.
    lock = held or Lock(identity, _signed(info, request.body, ledger.who), ledger.epoch)
    return Decision(replace(ledger, lock=lock), 200, deed=None if held else TakeLock(lock))


def _unlock(ledger: Ledger, request: Request) -> Decision:
    info = _object(request.body)
    identity = (info.get("ID") if info else None) or request.lock_id
    if ledger.lock is None:
        # Nobody holds it: an answer that was lost on its way. One who names no lock at all does not know that.
        return Decision(ledger, 200) if identity else _refuse(ledger, 400, "name the lock by its ID")
    if identity != ledger.lock.id or ledger.lock.epoch != ledger.epoch:
        return _locked(ledger, ledger.lock, _not_its_own(ledger, ledger.lock, identity))
    return Decision(replace(ledger, lock=None), 200, deed=DropLock())


def _write(ledger: Ledger, request: Request) -> Decision:
    held = ledger.lock
    if held is None:
        return _refuse(ledger, 409, "nobody may write the state without holding its lock")
    if request.lock_id != held.id or held.epoch != ledger.epoch:
        return _locked(ledger, held, _not_its_own(ledger, held, request.lock_id))
    if len(request.body) > SIZE_LIMIT:
        return _refuse(ledger, 413, f"the state is over {SIZE_LIMIT // 2**20} MB")
    new, old = read_version(request.body), ledger.state
    if new is None:
        return _refuse(ledger, 400, "that is no state")
    if old is not None:
        if new.data == old.data:
            return Decision(ledger, 200)
        if new.lineage != old.lineage:
            return _refuse(ledger, 409, "the state that stands has another lineage")
        if new.serial <= old.serial:
            return _refuse(ledger, 409, f"the state that stands is newer (serial {old.serial})")
    return Decision(replace(ledger, state=new), 200, deed=Keep(new, old))


def _refuse(ledger: Ledger, status: int, why: str) -> Decision:
    return Decision(ledger, status, why.encode(), why=why)


def _locked(ledger: Ledger, held: Lock, why: str) -> Decision:
    return Decision(ledger, 423, held.info, why=why)


def _not_its_own(ledger: Ledger, held: Lock, given: object) -> str:
    if given != held.id:
        return f"it came with {f'the lock {given}' if given else 'no lock'}, while {held.id} is held"
    return f"the lock {held.id} was taken under lease {held.epoch}, and lease {ledger.epoch} has taken over"


def _signed(info: Mapping[str, Any] | None, raw: bytes, who: str) -> bytes:
    """The tool's lock information with who took it, where the tool left that empty."""
    return json.dumps({**info, "Info": who}).encode() if info and who and not info.get("Info") else raw


def _object(data: bytes) -> Mapping[str, Any] | None:
    try:
        document = json.loads(data) if data else None
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
