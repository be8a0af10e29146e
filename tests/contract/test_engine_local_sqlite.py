"""The local driver on the real store and the real clock: the same rules, with real transactions in between."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from skyspan.app.clock import SystemClock
from skyspan.drivers.local import LocalDriver
from skyspan.secrets.sealing import EnvelopeSealer
from skyspan.store.sql import open_store
from skyspan.testing.conformance.engine import Bench, EngineDriverConformance


class TestLocalDriverOnSqlite(EngineDriverConformance):
    @pytest.fixture
    async def bench(self, tmp_path: Path) -> AsyncIterator[Bench]:
        clock = SystemClock()
        store = open_store(f"sqlite:///{tmp_path / 'skyspan.db'}", EnvelopeSealer(tmp_path), clock)
        yield Bench(store, clock, lambda sinks: LocalDriver(store, clock, sinks))
        await store.close()
