"""What is remembered: deployments, their stages' records, runs, events, logs, leases, secrets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, overload

from skyspan.contracts.context import KeptWriter
from skyspan.model.address import DeploymentAddress, StageAddress
from skyspan.model.change import ConsoleLink
from skyspan.model.event import Event, RecordedEvent
from skyspan.model.lifecycle import DeploymentStatus, RunStatus, StageStatus, Verb
from skyspan.model.secret import Secret
from skyspan.model.value import OutputValue, Value


@dataclass(frozen=True, slots=True)
class Lease:
    """Who may act on a deployment until when. What is written under an epoch whose lease is not held is refused."""

    deployment: DeploymentAddress
    owner: str
    epoch: int
    expires_at: float
    run_id: str = ""
    verb: Verb = Verb.UP


@dataclass(frozen=True, slots=True)
class DeploymentRecord:
    """A deployment as remembered. `composition` is the file as last used, with inputs; `folder` where it was."""

    address: DeploymentAddress
    status: DeploymentStatus = DeploymentStatus.PENDING
    folder: str = ""
    composition: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Value] = field(default_factory=dict)
    health: str = "unknown"
    created_at: float = 0.0
    updated_at: float = 0.0
    last_run: str = ""


@dataclass(frozen=True, slots=True)
class StageRecord:
    """What was recorded of a stage when it was applied: all that destroy, stop and the skip rule need.

    `present` is false from the first intent until the first success, and after destroy the record is removed.
    `spec` is the resolved `with:`; it is stored sealed, as are sensitive outputs. `order` is its place in a valid
    dependency order; `needs` are the stages it was applied after.
    """

    address: StageAddress
    uses: str
    spec: Mapping[str, Value]
    hosts: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    fingerprint: str = ""
    needs: tuple[str, ...] = ()
    order: int = 0
    present: bool = False
    stopped: bool = False
    best_effort: bool = False
    prevent_destroy: bool = False
    on_stop: str = "stop"
    outputs: Mapping[str, OutputValue] = field(default_factory=dict)
    links: tuple[ConsoleLink, ...] = ()
    folder: str = ""
    applied_at: float = 0.0


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as its projection shows it. Times are epoch seconds; `finished_at` is 0 while it goes on."""

    id: str
    deployment: DeploymentAddress
    verb: Verb
    status: RunStatus = RunStatus.RUNNING
    started_at: float = 0.0
    finished_at: float = 0.0
    epoch: int = 0
    requested_by: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class StageRunRecord:
    """A stage within a run as its projection shows it."""

    run_id: str
    name: str
    uses: str
    status: StageStatus = StageStatus.PENDING
    change: str = ""
    attempt: int = 0
    started_at: float = 0.0
    finished_at: float = 0.0
    reason: str = ""
    outputs: tuple[str, ...] = ()
    error: Mapping[str, str] | None = None
    order: int = 0


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a run's merged log, redacted. `seq` orders the run's lines."""

    run_id: str
    seq: int
    at: float
    stage: str
    attempt: int
    stream: str
    text: str


@dataclass(frozen=True, slots=True)
class LogBlock(Sequence[LogLine]):
    """Lines of one stream that came together, in little room: the `LogLine`s are made when they are looked at."""

    run_id: str
    at: float
    stage: str
    attempt: int
    stream: str
    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    @overload
    def __getitem__(self, place: int) -> LogLine: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[LogLine]: ...
    def __getitem__(self, place: int | slice) -> LogLine | Sequence[LogLine]:
        if isinstance(place, slice):
            return replace(self, texts=self.texts[place])
        return LogLine(self.run_id, 0, self.at, self.stage, self.attempt, self.stream, self.texts[place])


@dataclass(frozen=True, slots=True)
class ConnectionRecord:
    """A workspace's template of a connection: the YAML as it was written, and when (epoch seconds, the store's own)."""

    workspace: str
    name: str
    text: str
    updated_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Batch:
    """What is written in one transaction: events (their projections follow), and stage records put or removed."""

    events: tuple[tuple[float, Event], ...] = ()
    put: tuple[StageRecord, ...] = ()
    removed: tuple[StageAddress, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.events or self.put or self.removed)


class DeploymentStore(Protocol):
    """Deployments and what is recorded of their stages."""

    async def deployment(self, address: DeploymentAddress) -> DeploymentRecord | None:
        """The deployment, or None."""
        ...

    async def deployments(self, workspace: str) -> Sequence[DeploymentRecord]:
        """All of a workspace, by name. `composition` and `inputs` may be empty here: listing does not read them."""
        ...

    async def save_deployment(self, record: DeploymentRecord, lease: Lease | None = None) -> None:
        """Create or replace it (`created_at` of an existing one stays; `updated_at` is the store's own).

        Raises FencedError for a stale `lease`."""
        ...

    async def stage_records(self, address: DeploymentAddress) -> Sequence[StageRecord]:
        """What is recorded of its stages, in `order`."""
        ...

    async def forget_deployment(self, address: DeploymentAddress) -> None:
        """Remove the deployment with its runs, records, logs and kept data; absent is success."""
        ...

    def kept(self, address: StageAddress, epoch: int) -> KeptWriter:
        """The stage's own sealed storage; writes under an epoch whose lease is not held raise FencedError."""
        ...


class RunStore(Protocol):
    """Runs and their events."""

    async def begin_run(self, run: RunRecord, lease: Lease) -> None:
        """Create the run (its id must be new, its deployment saved before, else NotFoundError).

        Raises FencedError for a stale lease."""
        ...

    async def append(self, run_id: str, lease: Lease, batch: Batch) -> None:
        """Write the batch and its projections in one transaction; durable when the call returns.

        Calls keep their order, even when not awaited one by one. Raises FencedError for a stale lease and
        StoreUnavailableError when it cannot be written; then nothing of the batch is."""
        ...

    async def run(self, run_id: str) -> RunRecord | None:
        """The run, by its full id or an unambiguous prefix of at least 4 characters.

        Raises NotFoundError naming candidates when more than one run begins so."""
        ...

    async def runs(self, address: DeploymentAddress, limit: int = 50) -> Sequence[RunRecord]:
        """A deployment's runs, newest first."""
        ...

    async def stage_runs(self, run_id: str) -> Sequence[StageRunRecord]:
        """The stages of a run, in dependency order."""
        ...

    async def events(self, run_id: str, after: int = 0, limit: int = 1000) -> Sequence[RecordedEvent]:
        """Events with `seq` above `after`, in order."""
        ...


class LeaseStore(Protocol):
    """One run at a time per deployment."""

    async def acquire(self, lease: Lease, now: float) -> Lease:
        """Take the lease with the next epoch (the one given is ignored).

        Raises RefusedError naming owner, verb, run and since when, while an unexpired lease is held."""
        ...

    async def renew(self, lease: Lease, expires_at: float) -> Lease:
        """Keep it longer; raises FencedError when it was taken over."""
        ...

    async def release(self, lease: Lease) -> None:
        """Give it up; harmless when it is not ours any more."""
        ...

    async def holder(self, address: DeploymentAddress) -> Lease | None:
        """Who holds it (perhaps expired), or None."""
        ...

    async def request_cancel(self, run_id: str, requested_by: str) -> None:
        """Ask the run's engine to cancel; the first to ask is remembered. Raises NotFoundError for an unknown run."""
        ...

    async def cancel_requested(self, run_id: str) -> str | None:
        """Who asked for the run's cancellation, or None."""
        ...


class LogWriter(Protocol):
    """Where an engine's lines go."""

    async def append_log(self, lines: Sequence[LogLine]) -> None:
        """Add lines; see `LogStore`."""
        ...


class LogStore(Protocol):
    """The merged log of each run."""

    async def append_log(self, lines: Sequence[LogLine], lease: Lease | None = None) -> None:
        """Add lines; `seq` is given by the store, in the order of calls. Raises NotFoundError for an unknown run, and
        FencedError for a stale `lease`.

        Much of it goes fastest as a LogBlock."""
        ...

    async def log(self, run_id: str, stage: str | None = None, after: int = 0, limit: int = 1000) -> Sequence[LogLine]:
        """Lines with `seq` above `after`, all stages or one."""
        ...


class SecretStore(Protocol):
    """A workspace's secrets, sealed at rest."""

    async def put_secret(self, workspace: str, name: str, value: Secret) -> None:
        """Set it, replacing an older value."""
        ...

    async def secret_names(self, workspace: str) -> Sequence[str]:
        """The names, sorted."""
        ...

    async def secret(self, workspace: str, name: str) -> Secret | None:
        """The secret, or None; raises SealError when it cannot be opened."""
        ...

    async def remove_secret(self, workspace: str, name: str) -> bool:
        """Forget it; whether it was there."""
        ...


class ConnectionStore(Protocol):
    """A workspace's templates of connections, sealed at rest."""

    async def put_connection(self, workspace: str, name: str, text: str, *, replace: bool = False) -> bool:
        """Write the template, in the place of an older one only with `replace`; whether it was written."""
        ...

    async def connections(self, workspace: str) -> Sequence[ConnectionRecord]:
        """All of a workspace, by name; raises SealError when one cannot be opened."""
        ...

    async def connection(self, workspace: str, name: str) -> ConnectionRecord | None:
        """The template, or None; raises SealError when it cannot be opened."""
        ...

    async def remove_connection(self, workspace: str, name: str) -> bool:
        """Forget it; whether it was there."""
        ...


class Store(DeploymentStore, RunStore, LeaseStore, LogStore, SecretStore, ConnectionStore, Protocol):
    """All of it, as one open store."""

    async def close(self) -> None:
        """Write what is queued and close; never raises."""
        ...


class Sealer(Protocol):
    """Seals bytes under a workspace's key, bound to where they are stored."""

    def seal(self, workspace: str, place: str, data: bytes) -> bytes:
        """Ciphertext of `data` that opens only for the same workspace and `place` (`table|row|column`)."""
        ...

    def open(self, workspace: str, place: str, sealed: bytes) -> bytes:
        """The data; raises SealError for a wrong key, damage or another place."""
        ...

    def fingerprint_key(self, workspace: str) -> bytes:
        """A key for keyed digests of specs (32 bytes), stable for the workspace."""
        ...
