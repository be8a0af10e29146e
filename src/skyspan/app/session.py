"""An open store with what belongs to it: what every use case that remembers or recalls starts from."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from skyspan.app.clock import SystemClock
from skyspan.app.settings import Settings
from skyspan.contracts.context import Clock
from skyspan.contracts.store import Sealer, Store
from skyspan.model.address import DeploymentAddress, is_name
from skyspan.model.error import UsageError
from skyspan.model.secret import Secret


@dataclass(frozen=True, slots=True)
class Session:
    """Settings, an open store, the keys and the clock."""

    settings: Settings
    store: Store
    sealer: Sealer
    clock: Clock

    @property
    def person(self) -> str:
        """Who acts, for other people to read."""
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
    passphrase = Secret(settings.passphrase) if settings.passphrase else None
    sealer = EnvelopeSealer(settings.home, passphrase)
    store = open_store(settings.store, sealer, clock)
    try:
        yield Session(settings, store, sealer, clock)
    finally:
        await store.close()
