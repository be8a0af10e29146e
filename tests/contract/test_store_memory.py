"""The store in memory keeps the same rules as the real ones: what is tested on it holds for them."""

from __future__ import annotations

import pytest

from skyspan.testing.conformance.store import StoreConformance
from skyspan.testing.conformance.store_world import Opener
from skyspan.testing.memory_store import MemoryStore


class TestMemoryStore(StoreConformance):
    @pytest.fixture
    def opener(self) -> Opener:
        return MemoryStore().another
