"""The local driver on a store in memory and virtual time."""

from __future__ import annotations

import pytest

from skyspan.drivers.local import LocalDriver
from skyspan.testing.conformance.engine import Bench, EngineDriverConformance
from skyspan.testing.fake_clock import FakeClock
from skyspan.testing.memory_store import MemoryStore


class TestLocalDriver(EngineDriverConformance):
    @pytest.fixture
    def bench(self) -> Bench:
        store, clock = MemoryStore(), FakeClock()
        return Bench(store, clock, lambda sinks: LocalDriver(store, clock, sinks))
