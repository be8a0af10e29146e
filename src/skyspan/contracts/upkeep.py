"""The care of a store: what keeps it sound, small, movable and answerable, beside the calls that runs need."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from skyspan.contracts.store import DeploymentRecord, Lease, Sealer, StageRecord
from skyspan.model.address import DeploymentAddress
from skyspan.model.secret import Secret


@dataclass(frozen=True, slots=True)
class Access:
    """Somebody saw, took or replaced something secret. `at` is epoch seconds, `deployment` may be empty."""

    workspace: str
    at: float
    who: str
    what: str
    deployment: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Flaw:
    """Something in the store that cannot be right: what kind of thing, which one, what was found, what to do."""

    what: str
    where: str
    found: str
    hint: str


@dataclass(frozen=True, slots=True)
class Survey:
    """What a look through the whole store found, and how much it looked at."""

    flaws: tuple[Flaw, ...]
    runs: int = 0
    events: int = 0
    sealed: int = 0


@dataclass(frozen=True, slots=True)
class Retention:
    """Which runs of a deployment may go: those beyond the newest `keep_runs`, or begun before `before`."""

    keep_runs: int | None = None
    before: float | None = None


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was removed of one deployment's history."""

    deployment: DeploymentAddress
    runs: int
    events: int


@dataclass(frozen=True, slots=True)
class Portion:
    """A deployment as it moves to another store: everything that destroy, stop and the skip rule need,
    and the `secrets` and templates of `connections` (YAML by name) that its next `up` reads."""

    deployment: DeploymentRecord
    stages: tuple[StageRecord, ...] = ()
    kept: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict, repr=False)
    secrets: Mapping[str, Secret] = field(default_factory=dict, repr=False)
    connections: Mapping[str, str] = field(default_factory=dict)


Write: TypeAlias = Callable[[Any], None]
"""Takes the next record of a dump: JSON data."""


class AuditLog(Protocol):
    """Who saw what."""

    async def note_access(self, access: Access) -> None:
        """Remember it; durable when the call returns."""
        ...

    async def accesses(self, workspace: str, deployment: str | None = None, limit: int = 200) -> Sequence[Access]:
        """Those of a workspace, or of one deployment, newest first."""
        ...


class Maintenance(Protocol):
    """What keeps a store sound and small."""

    async def survey(self) -> Survey:
        """Look through everything, in one snapshot. Raises StoreCorruptError when not even that is possible."""
        ...

    async def prune(self, address: DeploymentAddress, retention: Retention) -> Pruned:
        """Remove old runs with their events and logs; never the newest one, the newest that could change something,
        one that has not ended, or anything that is recorded of stages."""
        ...

    async def reseal(self, workspace: str, current: bytes, limit: int) -> int:
        """Seal up to `limit` values anew that do not begin with `current`; how many were found. 0: none are left."""
        ...

    async def settle(self) -> None:
        """Wait until every writing transaction that has begun before the call, in any process, has ended."""
        ...

    async def compact(self) -> None:
        """Give free space back, so that nothing of what was removed stays readable in it."""
        ...

    async def held(self, now: float) -> Sequence[Lease]:
        """All leases that are held and not expired, of every workspace."""
        ...


class Movable(Protocol):
    """What takes a store, or a deployment, to another place."""

    async def dump(self, begin: Callable[[], Write]) -> None:
        """Write the whole store as records, from one snapshot. `begin` is called again when it has to start over."""
        ...

    async def load(self, records: Callable[[], Iterable[Any]], *, replace: bool, now: float) -> int:
        """Fill the store with what `dump` wrote, all or nothing; how many rows.

        Raises UsageError unless the store is empty or `replace` is set, RefusedError while somebody works with it."""
        ...

    async def empty(self) -> bool:
        """Whether nothing was ever stored."""
        ...

    async def take_out(self, address: DeploymentAddress) -> Portion | None:
        """A deployment with what its stages keep, from one snapshot; without secrets and templates."""
        ...

    async def take_in(self, portion: Portion, lease: Lease) -> None:
        """Put a deployment here in the place of what is recorded under its name, all or nothing."""
        ...


class Upkeep(AuditLog, Maintenance, Movable, Protocol):
    """All of it. Each call works on a connection of its own, so that none makes a run wait."""


class Resealing(Sealer, Protocol):
    """A sealer whose keys can be replaced."""

    def current(self, workspace: str) -> bytes:
        """What every value begins with that is sealed under the key in use."""
        ...
