"""The shipped fake keeps the rules of a provider: what is tested with it holds for real ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from skyspan.model.secret import Secret
from skyspan.testing import fake_provider
from skyspan.testing.conformance.provider import ProviderCase, ProviderConformance
from skyspan.testing.fake_provider import (
    FakeProvider,
    FakeSpec,
    FakeWorld,
    StartableFakeProvider,
    StoppableFakeProvider,
)
from skyspan.testing.provider_world import ProviderWorld


class TestFakeProvider(ProviderConformance):
    @pytest.fixture(params=[FakeProvider, StoppableFakeProvider, StartableFakeProvider])
    def case(self, tmp_path: Path, request: pytest.FixtureRequest) -> ProviderCase:
        world, kind = FakeWorld(), request.param
        return ProviderCase(
            provider=kind(world),
            spec=FakeSpec(value=1, outputs={"ip": "192.0.2.1"}, token=Secret("hunter2-hunter2")),
            changed=FakeSpec(value=2, token=Secret("hunter2-hunter2")),
            world=ProviderWorld(tmp_path, {}),
            snapshot=lambda: dict(world.things),
            files=(Path(fake_provider.__file__),),
        )
