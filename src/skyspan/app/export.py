"""A deployment on its way to another machine, in an age file: records, what stages keep, secrets and templates."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from skyspan import __version__
from skyspan.app.audit import remember
from skyspan.app.documents import Document, timestamp
from skyspan.app.holding import held, new_run_id
from skyspan.app.library import copies
from skyspan.app.prepare import secrets_read
from skyspan.app.queries import find_deployment
from skyspan.app.session import Session
from skyspan.contracts.store import DeploymentRecord, Lease, StageRecord
from skyspan.contracts.upkeep import Portion
from skyspan.model.address import DeploymentAddress, is_name
from skyspan.model.change import ConsoleLink
from skyspan.model.error import NotFoundError, StoreCorruptError, UsageError
from skyspan.model.lifecycle import DeploymentStatus, Verb
from skyspan.model.secret import Secret
from skyspan.model.value import OutputValue, tagged, untagged
from skyspan.secrets import age, private_file

_FORMAT, _VERSION = "skyspan-deployment", 1
_PLAIN = (
    *("uses", "fingerprint", "order", "present", "stopped", "best_effort", "prevent_destroy", "on_stop"),
    *("folder", "applied_at"),
)
"""Fields of a stage's record that are written as they are."""


async def export(
    session: Session, name: str, path: Path, recipients: Sequence[str], passphrase: Secret | None
) -> Document:
    """Write the deployment to `path` (0600), for `recipients` or for whoever knows `passphrase`."""
    record = await find_deployment(session, name)
    async with _unchanged(session, record.address):
        portion = await session.upkeep.take_out(record.address)
        if portion is None:
            raise NotFoundError(f"there is no deployment {name!r}")
        portion = replace(
            portion,
            secrets=await _secrets(session, portion.deployment),
            connections=await _connections(session, portion.deployment),
        )
        data = json.dumps(_document(portion, session)).encode()
        sealed = age.encrypt_to(recipients, data) if passphrase is None else age.encrypt_with(passphrase, data)
        whom = ", ".join(recipients) if passphrase is None else "a passphrase"
        await remember(session, "deployment exported", name, f"{path} for {whom}")
        private_file.replace(path, sealed)
    return _summary(portion, path)


@dataclass(frozen=True, slots=True)
class Arriving:
    """An exported deployment, opened, and what it would replace here."""

    portion: Portion
    replaces: tuple[str, ...] = ()


async def open_export(
    session: Session, path: Path, identities: Sequence[Path], passphrase: Secret | None, name: str | None
) -> Arriving:
    """Read an exported deployment and see what is in its way; changes nothing.

    Raises SealError when it cannot be opened, StoreCorruptError for what makes no sense."""
    portion = _portion(age.decrypt(read(path), identities, passphrase), session.settings.workspace, name)
    replaces = []
    if await session.store.deployment(portion.deployment.address) is not None:
        replaces.append(f"deployment {portion.deployment.address.name}")
    for secret_name, secret in portion.secrets.items():
        here = await session.store.secret(session.settings.workspace, secret_name)
        if here is not None and here != secret:
            replaces.append(f"secret {secret_name}")
    for connection, text in portion.connections.items():
        known = await session.store.connection(session.settings.workspace, connection)
        if known is not None and known.text != text:
            replaces.append(f"connection {connection}")
    return Arriving(portion, tuple(replaces))


async def take_in(session: Session, arriving: Arriving, path: Path) -> Document:
    """Record the deployment here, all or nothing. Raises RefusedError while a run goes on under its name."""
    address = arriving.portion.deployment.address
    async with _unchanged(session, address) as lease:
        await remember(session, "deployment imported", address.name, str(path))
        await session.upkeep.take_in(arriving.portion, lease)
    return _summary(arriving.portion, path)


def read(path: Path) -> bytes:
    """An exported file; raises NotFoundError or UsageError."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file {path}") from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def recipients_of(texts: Sequence[str]) -> tuple[str, ...]:
    """The recipients that were named, those in files (one per line) too. Raises UsageError."""
    found: list[str] = []
    for text in texts:
        if text.startswith(("age1", "ssh-")):
            found.append(text)
            continue
        try:
            lines = Path(text).read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise UsageError(f"{text!r} is neither a recipient nor a file of recipients") from error
        found += [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return tuple(found)


def _unchanged(session: Session, address: DeploymentAddress) -> AbstractAsyncContextManager[Lease]:
    """Nobody else changes the deployment while it is copied."""
    return held(session, address, Verb.CHECK, f"move-{new_run_id()}")


async def _secrets(session: Session, record: DeploymentRecord) -> Mapping[str, Secret]:
    names = secrets_read(record.composition)
    found = {name: await session.store.secret(record.address.workspace, name) for name in names}
    return {name: secret for name, secret in found.items() if secret is not None}


async def _connections(session: Session, record: DeploymentRecord) -> Mapping[str, str]:
    """The templates that it was brought up with, as they are in the workspace now."""
    workspace = record.address.workspace
    names = sorted(copies(record.composition.get("connections") or {}))
    found = {name: await session.store.connection(workspace, name) for name in names}
    return {name: template.text for name, template in found.items() if template is not None}


def _document(portion: Portion, session: Session) -> dict[str, Any]:
    record = portion.deployment
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "skyspan": __version__,
        "made_at": timestamp(session.clock.now()),
        "made_by": session.person,
        "name": record.address.name,
        "status": record.status.value,
        "health": record.health,
        "folder": record.folder,
        "created_at": record.created_at,
        "composition": tagged(record.composition),
        "inputs": tagged(record.inputs),
        "stages": [_stage_document(stage) for stage in portion.stages],
        "kept": {
            stage: {name: base64.b64encode(data).decode() for name, data in items.items()}
            for stage, items in portion.kept.items()
        },
        "secrets": {name: secret.reveal() for name, secret in portion.secrets.items()},
        "connections": dict(portion.connections),
    }


def _stage_document(stage: StageRecord) -> dict[str, Any]:
    return {
        "name": stage.address.name,
        **{name: getattr(stage, name) for name in _PLAIN},
        "needs": list(stage.needs),
        "spec": tagged(stage.spec),
        "hosts": tagged(stage.hosts),
        "outputs": {
            name: {"value": tagged(output.value), "sensitive": output.sensitive}
            for name, output in stage.outputs.items()
        },
        "links": [asdict(link) for link in stage.links],
    }


def _portion(data: bytes, workspace: str, name: str | None) -> Portion:
    try:
        document = json.loads(data)
        if document["format"] != _FORMAT or document["version"] != _VERSION:
            raise UsageError("the file holds no deployment that this Skyspan understands", hint="upgrade Skyspan")
        chosen = name or document["name"]
        if not is_name(chosen):
            raise UsageError(f"{chosen!r} is no deployment name", hint="lower-case letters, digits, - and _")
        address = DeploymentAddress(workspace, chosen)
        record = DeploymentRecord(
            address,
            DeploymentStatus(document["status"]),
            document["folder"],
            untagged(document["composition"]),
            untagged(document["inputs"]),
            document["health"],
            float(document["created_at"]),
        )
        kept = {
            stage: {item: base64.b64decode(text, validate=True) for item, text in items.items()}
            for stage, items in document["kept"].items()
        }
        secrets = {item: Secret(text) for item, text in document["secrets"].items()}
        stages = tuple(_stage(address, item) for item in document["stages"])
        # Files of before there were templates have none.
        connections = {item: str(text) for item, text in document.get("connections", {}).items() if is_name(item)}
        return Portion(record, stages, kept, secrets, connections)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreCorruptError(
            "what the file holds makes no sense", detail=f"{type(error).__name__}: {error}"
        ) from error


def _stage(address: DeploymentAddress, item: Mapping[str, Any]) -> StageRecord:
    return StageRecord(
        address=address.stage(item["name"]),
        **{name: item[name] for name in _PLAIN},
        needs=tuple(item["needs"]),
        spec=untagged(item["spec"]),
        hosts=untagged(item["hosts"]),
        outputs={
            name: OutputValue(untagged(output["value"]), output["sensitive"])
            for name, output in item["outputs"].items()
        },
        links=tuple(ConsoleLink(**link) for link in item["links"]),
    )


def _summary(portion: Portion, path: Path) -> Document:
    return {
        "deployment": portion.deployment.address.name,
        "workspace": portion.deployment.address.workspace,
        "file": str(path),
        "folder": portion.deployment.folder,
        "stages": [stage.address.name for stage in portion.stages],
        "secrets": sorted(portion.secrets),
        "connections": sorted(portion.connections),
    }
