"""The tailscale provider under the provider suite: a real tailscaled and a real Headscale in network namespaces."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.tailnet import spec, tools

from skyspan.model.secret import Secret
from skyspan.networks.tailscale.provider import TailscaleProvider
from skyspan.testing.conformance.provider import ProviderCase, ProviderConformance
from skyspan.testing.provider_world import ProviderWorld
from skyspan.testing.tailnet_world import TailnetWorld
from skyspan.transports.local import LocalTransport


@pytest.mark.integration
class TestTailscale(ProviderConformance):
    @pytest.fixture
    async def tailnet(self) -> AsyncIterator[TailnetWorld]:
        here = LocalTransport({"PATH": tools(), "LC_ALL": "C.UTF-8"})
        world = await TailnetWorld.make_tailnet(here, ("app-1",))
        yield world
        await world.close()

    @pytest.fixture
    async def case(self, tmp_path: Path, tailnet: TailnetWorld) -> ProviderCase:
        key = Secret(await tailnet.key())
        variables = {"TS_AUTHKEY": key}
        return ProviderCase(
            provider=TailscaleProvider(),
            spec=spec(hosts=["app-1"]),
            changed=spec(hosts=["app-1"], accept_routes=True),
            secrets=(key,),
            world=ProviderWorld(tmp_path, tailnet.places, hosts=tailnet.hosts, variables=variables),
            snapshot=tailnet.state,
        )
