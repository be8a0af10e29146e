"""The routes provider under the provider suite: real routes on gateways in network namespaces."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.bgp_rig import ENV

from skyspan.model.secret import Secret
from skyspan.networks.routes.provider import RoutesProvider
from skyspan.networks.routes.spec import RoutesSpec
from skyspan.testing.conformance.provider import ProviderCase, ProviderConformance
from skyspan.testing.conformance.source_rules import models_of
from skyspan.testing.gateway_world import GatewayWorld
from skyspan.testing.provider_world import ProviderWorld
from skyspan.transports.local import LocalTransport


def spec(*to: str, **settings: Any) -> RoutesSpec:
    east = {"host": "east-gw", "to": to or ["10.2.0.0/24"], "via": "198.18.1.1"}
    west = {"host": "west-gw", "to": ["10.1.0.0/24"], "interface": "eth0"}
    return RoutesSpec.model_validate({"routes": [east, west], **settings})


@pytest.mark.integration
class TestRoutes(ProviderConformance):
    @pytest.fixture
    async def gateways(self) -> AsyncIterator[GatewayWorld]:
        world = await GatewayWorld.make(LocalTransport(ENV))
        yield world
        await world.close()

    @pytest.fixture
    def case(self, tmp_path: Path, gateways: GatewayWorld) -> ProviderCase:
        return ProviderCase(
            provider=RoutesProvider(),
            spec=spec(returns=[{"host": "west-gw", "to": ["10.1.0.0/24"]}]),
            changed=spec("10.2.0.0/25", "10.7.0.0/16"),
            slow_spec=spec(returns=[{"host": "west-gw", "to": ["10.66.0.0/16"]}], ready_within=60),
            world=ProviderWorld(tmp_path, gateways.gateways, hosts=gateways.hosts),
            snapshot=gateways.state,
        )

    async def test_no_secret_shows(self, case: ProviderCase) -> None:
        secret = [name for model in models_of(RoutesSpec) for name, info in model.model_fields.items() if _holds(info)]
        assert not secret, "its settings hold no secret that could show"

    async def test_no_secret_shows_in_an_error(self, case: ProviderCase) -> None:
        await self.test_no_secret_shows(case)


def _holds(info: Any) -> bool:
    return info.annotation is Secret or "Secret" in str(info.annotation)
