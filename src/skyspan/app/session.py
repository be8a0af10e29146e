"""An open store with what belongs to it: what every use case that remembers or recalls starts from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from skyspan.app.clock import SystemClock
from skyspan.app.passphrase import find_passphrase
from skyspan.app.settings import Settings
from skyspan.contracts.context import Clock
from skyspan.contracts.store import Store
from skyspan.model.address import DeploymentAddress, is_name
from skyspan.model.error import UsageError
from skyspan.model.secret import Secret

if TYPE_CHECKING:
    from skyspan.contracts.upkeep import Resealing, Upkeep


@dataclass(frozen=True, slots=True)
class Session:
    """Settings, an open store with its care, the keys, what unlocks them, and the clock."""

    settings: Settings
    store: Store
    sealer: Resealing
    clock: Clock
    open_upkeep: Callable[[], Upkeep]
    passphrase: Secret | None = field(default=None, repr=False)
    reached: Callable[[str], None] = field(default=lambda _point: None, repr=False)
    """Called at every crash point that is passed; the one that was planned for this process kills it."""

    @property
    def upkeep(self) -> Upkeep:
        """The care of the store."""
        return self.open_upkeep()

    @property
    def person(self) -> str:
        """Who is at work, for people to read; no identity to trust."""
        return f"{self.settings.person}@{self.settings.machine}"

    def address(self, name: str) -> DeploymentAddress:
        """The deployment called `name` in the current workspace; raises UsageError for an impossible name."""
        if not is_name(name):
            raise UsageError(f"{name!r} is no deployment name", hint="lower-case letters, digits, - and _")
        return DeploymentAddress(self.settings.workspace, name)


@asynccontextmanager
async def open_session(settings: Settings) -> AsyncIterator[Session]:
    """Open the store for the time of the block; it connects when it is first used."""
    from skyspan.secrets.sealing import EnvelopeSealer
    from skyspan.store.sql import open_store

    clock = SystemClock()
    passphrase = await find_passphrase(settings)
    sealer = EnvelopeSealer(settings.home, passphrase)
    store = open_store(settings.store, sealer, clock)
    try:
        yield Session(settings, store, sealer, clock, store.upkeep, passphrase, _crash_points(settings))
    finally:
        await store.close()


def _crash_points(settings: Settings) -> Callable[[str], None]:
    """Raises UsageError for a plan that is not understood."""
    if not settings.fault:
        return lambda _point: None
    from skyspan.engine.faults import FaultPlan

    return FaultPlan(settings.fault).reach


def with_passphrase(session: Session, passphrase: Secret) -> Session:
    """The same session for a home that is locked with `passphrase` from now on."""
    from skyspan.secrets.sealing import EnvelopeSealer
    from skyspan.store.sql import open_store

    sealer = EnvelopeSealer(session.settings.home, passphrase)
    return replace(
        session,
        sealer=sealer,
        passphrase=passphrase,
        open_upkeep=open_store(session.settings.store, sealer, session.clock).upkeep,
    )
