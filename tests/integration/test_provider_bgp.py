"""The bgp provider under the provider suite: real daemons over a real WireGuard link between network namespaces."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.support.bgp_rig import Joined, bgp
from tests.support.gateways import given_back, stage_on

from skyspan.model.secret import Secret
from skyspan.networks.bgp.provider import BgpProvider
from skyspan.networks.bgp.spec import BgpSpec
from skyspan.testing.conformance.provider import ProviderCase, ProviderConformance

PASSWORD = Secret("made-for-this-test-alone")


@pytest.mark.integration
class TestBgp(ProviderConformance):
    @pytest_asyncio.fixture(loop_scope="module")
    async def case(
        self, tmp_path: Path, shared_link: Joined, shared_linked: dict[str, str]
    ) -> AsyncIterator[ProviderCase]:
        def spec(*west: str, **settings: Any) -> BgpSpec:
            return bgp(
                shared_link, {"daemon": "bird"}, {"daemon": "bird", "announce": west or ["10.2.0.0/24"]}, **settings
            )

        case = ProviderCase(
            provider=BgpProvider(),
            spec=spec(),
            changed=spec("10.2.0.0/24", "10.2.64.0/20", hold=9),
            secret_spec=spec(password=PASSWORD),
            slow_spec=spec("10.9.0.0/24", ready_within=60),
            world=stage_on(shared_link.sites, tmp_path),
            snapshot=shared_link.sites.state,
        )
        async with given_back(case, shared_link.sites, shared_linked):
            yield case
