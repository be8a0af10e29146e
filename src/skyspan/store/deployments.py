"""Deployments, what is recorded of their stages, and what stages keep for themselves."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa

from skyspan.contracts.store import DeploymentRecord, Lease, StageRecord
from skyspan.model.address import DeploymentAddress, StageAddress
from skyspan.model.change import ConsoleLink
from skyspan.model.error import NotFoundError
from skyspan.model.lifecycle import DeploymentStatus
from skyspan.model.value import OutputValue, Value
from skyspan.store.codec import place, plain, reading, to_json
from skyspan.store.database import Row, Transaction
from skyspan.store.leases import fence, guard
from skyspan.store.tables import compositions, deployments, kept, leases, outputs, stages

_NOTHING: Mapping[str, Any] = MappingProxyType({})

_STATUSES: Mapping[str, DeploymentStatus] = MappingProxyType({status.value: status for status in DeploymentStatus})

_HEAD = sa.select(
    deployments.c.name,
    deployments.c.status,
    deployments.c.folder,
    deployments.c.health,
    deployments.c.created_at,
    deployments.c.updated_at,
    deployments.c.last_run,
).where(deployments.c.workspace == sa.bindparam("workspace"))

_ALL = _HEAD.order_by(deployments.c.name)
_ONE = _HEAD.where(deployments.c.name == sa.bindparam("name"))

_CREATED = sa.select(deployments.c.created_at).where(
    deployments.c.workspace == sa.bindparam("workspace"), deployments.c.name == sa.bindparam("name")
)

_COMPOSITION = sa.select(compositions.c.composition_sealed, compositions.c.inputs_sealed).where(
    compositions.c.workspace == sa.bindparam("workspace"), compositions.c.deployment == sa.bindparam("name")
)


def _mine(table: sa.Table) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return table.c.workspace == sa.bindparam("of_workspace"), table.c.deployment == sa.bindparam("of_deployment")


_STAGES = sa.select(stages).where(*_mine(stages)).order_by(stages.c.position, stages.c.name)
_OUTPUTS = sa.select(outputs).where(*_mine(outputs)).order_by(outputs.c.stage, outputs.c.position)

_ADD_OUTPUTS = sa.insert(outputs)
_DROP_OUTPUTS = sa.delete(outputs).where(*_mine(outputs), outputs.c.stage == sa.bindparam("of_stage"))
_DROP_STAGE = sa.delete(stages).where(*_mine(stages), stages.c.name == sa.bindparam("of_stage"))
_DROP_DEPLOYMENT = sa.delete(deployments).where(
    deployments.c.workspace == sa.bindparam("of_workspace"), deployments.c.name == sa.bindparam("of_deployment")
)
_VACATE = sa.update(leases).where(*_mine(leases)).values(held=False, owner="", run_id="", verb="", expires_at=0.0)

_KEPT = sa.select(kept.c.data_sealed).where(
    *_mine(kept), kept.c.stage == sa.bindparam("of_stage"), kept.c.name == sa.bindparam("name")
)
_DROP_KEPT = sa.delete(kept).where(
    *_mine(kept), kept.c.stage == sa.bindparam("of_stage"), kept.c.name == sa.bindparam("of_name")
)


def deployment_head(tx: Transaction, address: DeploymentAddress) -> DeploymentRecord | None:
    """The deployment without its composition and inputs."""
    rows = tx.fetch(_ONE, {"workspace": address.workspace, "name": address.name})
    return _head(address.workspace, rows[0]) if rows else None


def find_deployment(tx: Transaction, address: DeploymentAddress) -> DeploymentRecord | None:
    """The whole deployment."""
    head = deployment_head(tx, address)
    row = tx.execute(_COMPOSITION, {"workspace": address.workspace, "name": address.name}).first()
    if head is None or row is None:
        return None
    identity = (address.workspace, address.name)
    return DeploymentRecord(
        address=head.address,
        status=head.status,
        folder=head.folder,
        composition=tx.codec.open(identity[0], place("compositions", identity, "composition"), row[0]),
        inputs=tx.codec.open(identity[0], place("compositions", identity, "inputs"), row[1]),
        health=head.health,
        created_at=head.created_at,
        updated_at=head.updated_at,
        last_run=head.last_run,
    )


def list_deployments(tx: Transaction, workspace: str) -> Sequence[DeploymentRecord]:
    """The heads of all deployments of a workspace."""
    with reading(f"the list of deployments of {workspace}"):
        return [_head(workspace, row) for row in tx.fetch(_ALL, {"workspace": workspace})]


def save_head(tx: Transaction, record: DeploymentRecord) -> None:
    """Replace what is known of the deployment, except its composition and inputs."""
    tx.put(
        deployments,
        [
            {
                "workspace": record.address.workspace,
                "name": record.address.name,
                "status": record.status.value,
                "health": record.health,
                "folder": plain(record.folder),
                "last_run": record.last_run,
                "created_at": record.created_at,
                "updated_at": record.updated_at,
            }
        ],
    )


def save_deployment(tx: Transaction, record: DeploymentRecord, lease: Lease | None = None) -> None:
    """Create or replace the deployment; raises FencedError for a stale lease."""
    if lease is not None:
        guard(tx, record.address, lease)
    workspace, name = identity = (record.address.workspace, record.address.name)
    now = tx.clock.now()
    created = tx.execute(_CREATED, {"workspace": workspace, "name": name}).scalar()
    save_head(
        tx,
        DeploymentRecord(
            address=record.address,
            status=record.status,
            folder=record.folder,
            health=record.health,
            created_at=created if created is not None else record.created_at or now,
            updated_at=now,
            last_run=record.last_run,
        ),
    )
    composition = tx.codec.seal(workspace, place("compositions", identity, "composition"), record.composition)
    inputs = tx.codec.seal(workspace, place("compositions", identity, "inputs"), record.inputs)
    row = {"workspace": workspace, "deployment": name, "composition_sealed": composition, "inputs_sealed": inputs}
    tx.put(compositions, [row])


def forget_deployment(tx: Transaction, address: DeploymentAddress) -> None:
    """Remove all of it but the epoch of its lease."""
    tx.execute(_DROP_DEPLOYMENT, _key(address))
    tx.execute(_VACATE, _key(address))


def list_stages(tx: Transaction, address: DeploymentAddress) -> Sequence[StageRecord]:
    """What is recorded of the stages, in order."""
    rows = tx.execute(_OUTPUTS, _key(address)).all()
    by_stage = {stage: list(group) for stage, group in groupby(rows, key=lambda row: row.stage)}
    return [_stage(tx, row, by_stage.get(row.name, ())) for row in tx.execute(_STAGES, _key(address)).all()]


def put_stages(tx: Transaction, records: Iterable[StageRecord]) -> None:
    """Create or replace what is recorded of stages, outputs included."""
    for record in records:
        tx.put(stages, [_stage_columns(tx, record)])
        tx.change(_DROP_OUTPUTS, {**_key(record.address.deployment), "of_stage": record.address.name})
        if record.outputs:
            tx.change(_ADD_OUTPUTS, *_output_rows(tx, record))


def remove_stages(tx: Transaction, addresses: Iterable[StageAddress]) -> None:
    """Remove what is recorded of stages; absent is success."""
    for address in addresses:
        tx.change(_DROP_STAGE, {**_key(address.deployment), "of_stage": address.name})


def get_kept(tx: Transaction, address: StageAddress, name: str) -> bytes | None:
    """What the stage kept under `name`."""
    key = {**_key(address.deployment), "of_stage": address.name, "name": name}
    sealed = tx.execute(_KEPT, key).scalar()
    return None if sealed is None else tx.codec.open_bytes(address.deployment.workspace, _kept(address, name), sealed)


def put_kept(tx: Transaction, address: StageAddress, epoch: int, name: str, data: bytes) -> None:
    """Keep `data`; raises FencedError unless the lease of that epoch is held."""
    deployment = address.deployment
    fence(tx, deployment, epoch)
    if tx.execute(_CREATED, {"workspace": deployment.workspace, "name": deployment.name}).scalar() is None:
        raise NotFoundError(f"there is no deployment {deployment}")
    row = {
        "workspace": deployment.workspace,
        "deployment": deployment.name,
        "stage": address.name,
        "name": name,
        "updated_at": tx.clock.now(),
        "data_sealed": tx.codec.seal_bytes(deployment.workspace, _kept(address, name), data),
    }
    tx.put(kept, [row])


def remove_kept(tx: Transaction, address: StageAddress, epoch: int, name: str) -> None:
    """Forget what was kept under `name`; raises FencedError unless the lease of that epoch is held."""
    fence(tx, address.deployment, epoch)
    tx.execute(_DROP_KEPT, {**_key(address.deployment), "of_stage": address.name, "of_name": name})


def _key(address: DeploymentAddress) -> dict[str, str]:
    return {"of_workspace": address.workspace, "of_deployment": address.name}


def _kept(address: StageAddress, name: str) -> str:
    return place("kept", (address.deployment.workspace, address.deployment.name, address.name, name), "data")


def _head(workspace: str, row: Sequence[Any]) -> DeploymentRecord:
    # Positional and flat: this runs ten thousand times for one listing.
    name, status, folder, health, created_at, updated_at, last_run = row
    address = DeploymentAddress(workspace, name)
    return DeploymentRecord(
        address, _STATUSES[status], folder, _NOTHING, _NOTHING, health, created_at, updated_at, last_run
    )


def _identity(address: StageAddress) -> tuple[str, str, str]:
    return (address.deployment.workspace, address.deployment.name, address.name)


def _stage_columns(tx: Transaction, record: StageRecord) -> dict[str, Any]:
    workspace, deployment, name = identity = _identity(record.address)
    spec = tx.codec.seal(workspace, place("stages", identity, "spec"), record.spec)
    hosts = tx.codec.seal(workspace, place("stages", identity, "hosts"), record.hosts) if record.hosts else None
    return {
        "workspace": workspace,
        "deployment": deployment,
        "name": name,
        "uses": record.uses,
        "fingerprint": record.fingerprint,
        "needs": to_json(record.needs),
        "position": record.order,
        "present": record.present,
        "stopped": record.stopped,
        "best_effort": record.best_effort,
        "prevent_destroy": record.prevent_destroy,
        "on_stop": record.on_stop,
        "folder": plain(record.folder),
        "applied_at": record.applied_at,
        "links": to_json([asdict(link) for link in record.links]),
        "spec_sealed": spec,
        "hosts_sealed": hosts,
    }


def _output_rows(tx: Transaction, record: StageRecord) -> list[dict[str, Any]]:
    workspace, deployment, stage = identity = _identity(record.address)
    return [
        {
            "workspace": workspace,
            "deployment": deployment,
            "stage": stage,
            "name": name,
            "position": position,
            "sensitive": output.sensitive,
            **tx.codec.output_columns(workspace, place("outputs", (*identity, name), "value"), output),
        }
        for position, (name, output) in enumerate(record.outputs.items())
    ]


def _stage(tx: Transaction, row: Row, output_rows: Iterable[Row]) -> StageRecord:
    address = DeploymentAddress(row.workspace, row.deployment).stage(row.name)
    identity = _identity(address)
    hosts: Mapping[str, Mapping[str, Value]] = {}
    if row.hosts_sealed is not None:
        hosts = tx.codec.open(row.workspace, place("stages", identity, "hosts"), row.hosts_sealed)
    spec = tx.codec.open(row.workspace, place("stages", identity, "spec"), row.spec_sealed)
    with reading(f"the record of the stage {address}"):
        return StageRecord(
            address=address,
            uses=row.uses,
            spec=spec,
            hosts=hosts,
            fingerprint=row.fingerprint,
            needs=tuple(json.loads(row.needs)),
            order=row.position,
            present=row.present,
            stopped=row.stopped,
            best_effort=row.best_effort,
            prevent_destroy=row.prevent_destroy,
            on_stop=row.on_stop,
            outputs={item.name: _output(tx, identity, item) for item in output_rows},
            links=tuple(ConsoleLink(**link) for link in json.loads(row.links)),
            folder=row.folder,
            applied_at=row.applied_at,
        )


def _output(tx: Transaction, identity: tuple[str, str, str], row: Row) -> OutputValue:
    if row.value_sealed is None:
        return OutputValue(json.loads(row.value), row.sensitive)
    where = place("outputs", (*identity, row.name), "value")
    return OutputValue(tx.codec.open(identity[0], where, row.value_sealed), row.sensitive)
