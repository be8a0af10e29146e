"""The use cases of `skyspan connections`: a workspace's templates, added, shown and removed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skyspan.app.documents import Document, timestamp
from skyspan.app.library import copies, parse
from skyspan.app.session import Session
from skyspan.contracts.store import ConnectionRecord
from skyspan.model.address import DeploymentAddress, is_name
from skyspan.model.composition import ConnectionTemplate
from skyspan.model.error import NotFoundError, UsageError
from skyspan.model.lifecycle import DeploymentStatus
from skyspan.planning.draft import SpecOf
from skyspan.planning.source import nearest
from skyspan.planning.template import check_template

if TYPE_CHECKING:
    from skyspan.app.prepare import Prepared

MAX_CHARACTERS = 32 * 1024


NOTHING_THERE = (DeploymentStatus.PENDING, DeploymentStatus.DESTROYED)
"""A deployment of that status holds nothing that was made with a template."""


@dataclass(frozen=True, slots=True)
class Written:
    """A template's YAML, and the file that messages about it name."""

    text: str
    file: str


@dataclass(frozen=True, slots=True)
class Shown:
    """A template for people: its YAML as it was written, and the document that is published of it."""

    text: str
    document: Document


async def add(session: Session, name: str, written: Written, spec_of: SpecOf, *, replace: bool) -> Document:
    """Keep the template. Raises UsageError for an impossible name and for one that is taken, unless `replace` is set;
    CompositionError with everything that is wrong with it."""
    workspace = session.settings.workspace
    if not is_name(name):
        raise UsageError(f"{name!r} is no name of a connection", hint="lower-case letters, digits, - and _")
    text = written.text
    if len(text) > MAX_CHARACTERS:
        raise UsageError(f"a template has at most {MAX_CHARACTERS} characters", hint="it holds settings of one link")
    template = _checked(written, spec_of)
    before = await session.store.connection(workspace, name)
    if not await session.store.put_connection(workspace, name, text, replace=replace):
        raise UsageError(
            f"there is a connection {name} in workspace {workspace} already",
            hint=f"`skyspan connections show {name}` shows it; --replace replaces it",
        )
    return {"workspace": workspace, "name": name, "uses": template.uses, "replaced": before is not None}


async def listing(session: Session) -> Document:
    """All of the workspace."""
    workspace = session.settings.workspace
    records = await session.store.connections(workspace)
    return {"workspace": workspace, "connections": [_head(record) for record in records]}


async def show(session: Session, name: str) -> Shown:
    """One of them, with the deployments that were last brought up with it. Raises NotFoundError."""
    record = await _found(session, name)
    raw = parse(name, record.text)[0]
    used_by = await _users(session, name)
    document = {
        "workspace": record.workspace, **_head(record), "with": raw.get("with") or {}, "used_by": used_by
    }  # fmt: skip
    return Shown(record.text, document)


async def remove(session: Session, name: str) -> Document:
    """Forget it, and say which deployments were last brought up with it. Raises NotFoundError.

    Those keep the settings that they were applied with, so they are stopped, started, checked and destroyed as before;
    only their next `up` needs a template of this name."""
    await _found(session, name)
    used_by = await _users(session, name)
    await session.store.remove_connection(session.settings.workspace, name)
    return {"workspace": session.settings.workspace, "removed": name, "used_by": used_by}


async def changed(session: Session, prepared: Prepared, address: DeploymentAddress) -> tuple[str, ...]:
    """The templates of the workspace that are not what the deployment was last brought up with."""
    taken = copies(prepared.raw.get("connections") or {})
    record = await session.store.deployment(address) if taken else None
    if record is None or record.status in NOTHING_THERE:
        return ()
    before = record.composition.get("connections") or {}
    return tuple(
        name
        for name in sorted(taken & copies(before))
        if _settings(before[name]) != _settings(prepared.raw["connections"][name])
    )


def _settings(entry: Mapping[str, Any]) -> tuple[Any, Any]:
    return entry.get("uses"), entry.get("with")


def _checked(written: Written, spec_of: SpecOf) -> ConnectionTemplate:
    from skyspan.app.yaml_source import parse_yaml

    raw, source, findings = parse_yaml(written.text, written.file)
    return check_template(raw, source, spec_of, findings)


def _head(record: ConnectionRecord) -> dict[str, Any]:
    raw = parse(record.name, record.text)[0]
    return {
        "name": record.name,
        "uses": raw.get("uses", ""),
        "description": raw.get("description", ""),
        "updated_at": timestamp(record.updated_at),
    }


async def _found(session: Session, name: str) -> ConnectionRecord:
    workspace = session.settings.workspace
    record = await session.store.connection(workspace, name)
    if record is None:
        names = [item.name for item in await session.store.connections(workspace)]
        raise NotFoundError(
            f"there is no connection {name!r} in workspace {workspace!r}", hint=nearest(name, names, "connections")
        )
    return record


async def _users(session: Session, name: str) -> list[str]:
    """The deployments whose last `up` took the template."""
    users = []
    for listed in await session.store.deployments(session.settings.workspace):
        if listed.status in NOTHING_THERE:
            continue
        whole = await session.store.deployment(listed.address)
        if whole is not None and name in copies(whole.composition.get("connections") or {}):
            users.append(listed.address.name)
    return users
