"""A store in memory with the same rules as the real ones: fencing, whole batches or nothing, projections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from skyspan.contracts.context import KeptWriter
from skyspan.contracts.projection import project_deployment, project_run, project_stage, stage_named, stages_of
from skyspan.contracts.store import (
    Batch,
    ConnectionRecord,
    DeploymentRecord,
    Lease,
    LogLine,
    RunRecord,
    StageRecord,
    StageRunRecord,
)
from skyspan.model.address import DeploymentAddress, StageAddress
from skyspan.model.error import FencedError, NotFoundError, RefusedError, StoreError, StoreUnavailableError
from skyspan.model.event import Event, RecordedEvent, RunStarted
from skyspan.model.secret import Secret


@dataclass(slots=True)
class _Run:
    record: RunRecord
    stages: dict[str, StageRunRecord] = field(default_factory=dict)
    events: list[RecordedEvent] = field(default_factory=list)
    log: list[LogLine] = field(default_factory=list)
    cancel: str | None = None


@dataclass(slots=True)
class _Tenure:
    """A deployment's lease: epochs only ever rise, also after it was given up."""

    lease: Lease
    held: bool = True
    since: float = 0.0


@dataclass(slots=True)
class _Memory:
    """What all handles on one store share."""

    deployments: dict[DeploymentAddress, DeploymentRecord] = field(default_factory=dict)
    records: dict[StageAddress, StageRecord] = field(default_factory=dict)
    kept: dict[tuple[StageAddress, str], bytes] = field(default_factory=dict)
    runs: dict[str, _Run] = field(default_factory=dict)
    leases: dict[DeploymentAddress, _Tenure] = field(default_factory=dict)
    secrets: dict[tuple[str, str], Secret] = field(default_factory=dict)
    connections: dict[tuple[str, str], ConnectionRecord] = field(default_factory=dict)
    appended: list[Batch] = field(default_factory=list)


class MemoryStore:
    """Implements `contracts.store.Store`.

    `before_write` is called with the name of each writing call before anything changes; what it raises is what the
    caller gets. `appended` keeps every batch that was written, for tests that count transactions.
    """

    def __init__(self, before_write: Callable[[str], None] | None = None) -> None:
        self._before_write = before_write or (lambda _: None)
        self._memory = _Memory()
        self.closed = False

    def another(self) -> MemoryStore:
        """One more handle on the same store, as another process would have."""
        handle = MemoryStore(self._before_write)
        handle._memory = self._memory
        return handle

    @property
    def appended(self) -> list[Batch]:
        """Every batch that was written, in order."""
        return self._memory.appended

    # Deployments

    async def deployment(self, address: DeploymentAddress) -> DeploymentRecord | None:
        self._open()
        return self._memory.deployments.get(address)

    async def deployments(self, workspace: str) -> Sequence[DeploymentRecord]:
        self._open()
        mine = (record for address, record in self._memory.deployments.items() if address.workspace == workspace)
        return sorted(mine, key=lambda record: record.address.name)

    async def save_deployment(self, record: DeploymentRecord, lease: Lease | None = None) -> None:
        self._writing("save_deployment")
        if lease is not None:
            self._fence(lease, record.address)
        before = self._memory.deployments.get(record.address)
        created_at = before.created_at if before is not None else record.created_at
        self._memory.deployments[record.address] = replace(record, created_at=created_at)

    async def stage_records(self, address: DeploymentAddress) -> Sequence[StageRecord]:
        self._open()
        mine = (record for stage, record in self._memory.records.items() if stage.deployment == address)
        return sorted(mine, key=lambda record: (record.order, record.address.name))

    async def forget_deployment(self, address: DeploymentAddress) -> None:
        self._writing("forget_deployment")
        memory = self._memory
        memory.deployments.pop(address, None)
        memory.records = {stage: kept for stage, kept in memory.records.items() if stage.deployment != address}
        memory.kept = {place: data for place, data in memory.kept.items() if place[0].deployment != address}
        memory.runs = {run: kept for run, kept in memory.runs.items() if kept.record.deployment != address}
        if address in memory.leases:
            memory.leases[address].held = False

    def kept(self, address: StageAddress, epoch: int) -> KeptWriter:
        return _Kept(self, address, epoch)

    # Runs

    async def begin_run(self, run: RunRecord, lease: Lease) -> None:
        self._writing("begin_run")
        self._fence(lease, run.deployment)
        if run.deployment not in self._memory.deployments:
            msg = f"there is no deployment {run.deployment.name}"
            raise NotFoundError(msg)
        if run.id in self._memory.runs:
            msg = f"run {run.id} exists already"
            raise StoreError(msg)
        self._memory.runs[run.id] = _Run(run)

    async def append(self, run_id: str, lease: Lease, batch: Batch) -> None:
        self._writing("append")
        run = self._known(run_id)
        touched = {record.address.deployment for record in batch.put} | {gone.deployment for gone in batch.removed}
        for address in {run.record.deployment, *touched}:
            self._fence(lease, address)
        for at, event in batch.events:
            self._add_event(run, at, event)
        for record in batch.put:
            self._memory.records[record.address] = record
        for gone in batch.removed:
            self._memory.records.pop(gone, None)
        self._memory.appended.append(batch)

    async def run(self, run_id: str) -> RunRecord | None:
        self._open()
        if run_id in self._memory.runs:
            return self._memory.runs[run_id].record
        found = [run for run in self._memory.runs if len(run_id) >= 4 and run.startswith(run_id)]
        if len(found) > 1:
            msg = f"{run_id} may be any of {', '.join(sorted(found))}"
            raise NotFoundError(msg)
        return self._memory.runs[found[0]].record if found else None

    async def runs(self, address: DeploymentAddress, limit: int = 50) -> Sequence[RunRecord]:
        self._open()
        # Newest first, and of two that began at the same time the later one in.
        mine = [run.record for run in reversed(self._memory.runs.values()) if run.record.deployment == address]
        return sorted(mine, key=lambda record: -record.started_at)[:limit]

    async def stage_runs(self, run_id: str) -> Sequence[StageRunRecord]:
        self._open()
        run = self._memory.runs.get(run_id)
        return sorted(run.stages.values(), key=lambda stage: stage.order) if run is not None else []

    async def events(self, run_id: str, after: int = 0, limit: int = 1000) -> Sequence[RecordedEvent]:
        self._open()
        run = self._memory.runs.get(run_id)
        return run.events[after : after + limit] if run is not None else []

    # Leases

    async def acquire(self, lease: Lease, now: float) -> Lease:
        self._writing("acquire")
        before = self._memory.leases.get(lease.deployment)
        if before is not None and before.held and before.lease.expires_at > now:
            held = before.lease
            raise RefusedError(
                f"{lease.deployment.name} is held by {held.owner}: {held.verb.value}, run {held.run_id},"
                f" since {_told(before.since)}",
                hint="wait for that run to end, or cancel it",
            )
        epoch = 1 if before is None else before.lease.epoch + 1
        taken = replace(lease, epoch=epoch)
        self._memory.leases[lease.deployment] = _Tenure(taken, since=now)
        return taken

    async def renew(self, lease: Lease, expires_at: float) -> Lease:
        self._writing("renew")
        tenure = self._fence(lease)
        tenure.lease = replace(lease, expires_at=expires_at)
        return tenure.lease

    async def release(self, lease: Lease) -> None:
        self._writing("release")
        tenure = self._memory.leases.get(lease.deployment)
        if tenure is not None and (tenure.lease.owner, tenure.lease.epoch) == (lease.owner, lease.epoch):
            tenure.held = False

    async def holder(self, address: DeploymentAddress) -> Lease | None:
        self._open()
        tenure = self._memory.leases.get(address)
        return tenure.lease if tenure is not None and tenure.held else None

    async def request_cancel(self, run_id: str, requested_by: str) -> None:
        self._writing("request_cancel")
        run = self._known(run_id)
        if run.cancel is None:
            run.cancel = requested_by

    async def cancel_requested(self, run_id: str) -> str | None:
        self._open()
        run = self._memory.runs.get(run_id)
        return run.cancel if run is not None else None

    # Logs

    async def append_log(self, lines: Sequence[LogLine], lease: Lease | None = None) -> None:
        self._writing("append_log")
        if lease is not None:
            self._fence(lease)
        for line in lines:
            log = self._known(line.run_id).log
            log.append(replace(line, seq=len(log) + 1))

    async def log(self, run_id: str, stage: str | None = None, after: int = 0, limit: int = 1000) -> Sequence[LogLine]:
        self._open()
        run = self._memory.runs.get(run_id)
        lines = run.log[after:] if run is not None else []
        return [line for line in lines if stage is None or line.stage == stage][:limit]

    # Secrets

    async def put_secret(self, workspace: str, name: str, value: Secret) -> None:
        self._writing("put_secret")
        self._memory.secrets[workspace, name] = value

    async def secret_names(self, workspace: str) -> Sequence[str]:
        self._open()
        return sorted(name for space, name in self._memory.secrets if space == workspace)

    async def secret(self, workspace: str, name: str) -> Secret | None:
        self._open()
        return self._memory.secrets.get((workspace, name))

    async def remove_secret(self, workspace: str, name: str) -> bool:
        self._writing("remove_secret")
        return self._memory.secrets.pop((workspace, name), None) is not None

    # Connections

    async def put_connection(self, workspace: str, name: str, text: str, *, replace: bool = False) -> bool:
        self._writing("put_connection")
        if (workspace, name) in self._memory.connections and not replace:
            return False
        self._memory.connections[workspace, name] = ConnectionRecord(workspace, name, text)
        return True

    async def connections(self, workspace: str) -> Sequence[ConnectionRecord]:
        self._open()
        mine = (record for (space, _), record in self._memory.connections.items() if space == workspace)
        return sorted(mine, key=lambda record: record.name)

    async def connection(self, workspace: str, name: str) -> ConnectionRecord | None:
        self._open()
        return self._memory.connections.get((workspace, name))

    async def remove_connection(self, workspace: str, name: str) -> bool:
        self._writing("remove_connection")
        return self._memory.connections.pop((workspace, name), None) is not None

    async def close(self) -> None:
        self.closed = True

    # What the parts above share

    def read_kept(self, address: StageAddress, name: str) -> bytes | None:
        """What a stage kept."""
        self._open()
        return self._memory.kept.get((address, name))

    def write_kept(self, address: StageAddress, epoch: int, name: str, data: bytes | None) -> None:
        """Keep or forget it, if the lease of that epoch is held."""
        self._writing("kept")
        tenure = self._memory.leases.get(address.deployment)
        if tenure is None or not tenure.held or tenure.lease.epoch != epoch:
            raise _fenced(address.deployment, epoch, tenure.lease if tenure is not None else None)
        if data is None:
            self._memory.kept.pop((address, name), None)
        elif address.deployment not in self._memory.deployments:
            msg = f"there is no deployment {address.deployment.name}"
            raise NotFoundError(msg)
        else:
            self._memory.kept[address, name] = bytes(data)

    def _add_event(self, run: _Run, at: float, event: Event) -> None:
        run.events.append(RecordedEvent(run.record.id, len(run.events) + 1, at, event))
        if isinstance(event, RunStarted):
            run.stages = {stage.name: stage for stage in stages_of(event, run.record.id)}
        run.record = project_run(run.record, at, event)
        if (stage := run.stages.get(stage_named(event))) is not None:
            run.stages[stage.name] = project_stage(stage, at, event)
        deployment = self._memory.deployments.get(run.record.deployment)
        if deployment is not None:
            self._memory.deployments[deployment.address] = project_deployment(deployment, run.record, at, event)

    def _fence(self, lease: Lease, address: DeploymentAddress | None = None) -> _Tenure:
        if address is not None and address != lease.deployment:
            msg = f"the lease of {lease.deployment.name} does not cover {address.name}"
            raise FencedError(msg)
        tenure = self._memory.leases.get(lease.deployment)
        if tenure is None or not tenure.held or (tenure.lease.owner, tenure.lease.epoch) != (lease.owner, lease.epoch):
            raise _fenced(lease.deployment, lease.epoch, tenure.lease if tenure is not None else None)
        return tenure

    def _known(self, run_id: str) -> _Run:
        if run_id not in self._memory.runs:
            msg = f"there is no run {run_id}"
            raise NotFoundError(msg)
        return self._memory.runs[run_id]

    def _open(self) -> None:
        if self.closed:
            msg = "the store is closed"
            raise StoreUnavailableError(msg)

    def _writing(self, call: str) -> None:
        self._open()
        self._before_write(call)


def _told(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _fenced(deployment: DeploymentAddress, epoch: int, holder: Lease | None) -> FencedError:
    now = "nobody holds it" if holder is None else f"{holder.owner} holds it under epoch {holder.epoch}"
    return FencedError(f"epoch {epoch} of {deployment.name} is over: {now}")


class _Kept:
    """A stage's own storage; implements `contracts.context.KeptWriter`."""

    def __init__(self, store: MemoryStore, address: StageAddress, epoch: int) -> None:
        self._store, self._address, self._epoch = store, address, epoch

    async def get(self, name: str) -> bytes | None:
        return self._store.read_kept(self._address, name)

    async def put(self, name: str, data: bytes) -> None:
        self._store.write_kept(self._address, self._epoch, name, data)

    def put_soon(self, name: str, data: bytes) -> None:
        self._store.write_kept(self._address, self._epoch, name, data)

    async def remove(self, name: str) -> None:
        self._store.write_kept(self._address, self._epoch, name, None)
