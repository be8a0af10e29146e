"""The bgp provider under the provider suite: real daemons over a real WireGuard link between network namespaces."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.bgp_rig import Joined, bgp, joined

from skyspan.model.secret import Secret
from skyspan.networks.bgp.provider import BgpProvider
from skyspan.networks.bgp.spec import BgpSpec
from skyspan.testing.conformance.provider import ProviderCase, ProviderConformance
from skyspan.testing.provider_world import ProviderWorld

PASSWORD = Secret("made-for-this-test-alone")


@pytest.mark.integration
class TestBgp(ProviderConformance):
    @pytest.fixture
    async def link(self, tmp_path: Path) -> AsyncIterator[Joined]:
        async with joined(tmp_path) as made:
            yield made

    @pytest.fixture
    def case(self, tmp_path: Path, link: Joined) -> ProviderCase:
        def spec(*west: str, **settings: Any) -> BgpSpec:
            return bgp(link, {"daemon": "bird"}, {"daemon": "bird", "announce": west or ["10.2.0.0/24"]}, **settings)

        return ProviderCase(
            provider=BgpProvider(),
            spec=spec(),
            changed=spec("10.2.0.0/24", "10.2.64.0/20", hold=9),
            secret_spec=spec(password=PASSWORD),
            slow_spec=spec("10.9.0.0/24", ready_within=60),
            world=ProviderWorld(tmp_path / "bgp", link.sites.gateways, hosts=link.sites.hosts),
            snapshot=link.sites.state,
        )
