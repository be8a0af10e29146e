"""The routes provider under the provider suite: real routes on gateways in network namespaces."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.support.gateways import given_back, stage_on

from skyspan.model.secret import Secret
from skyspan.networks.routes.provider import RoutesProvider
from skyspan.networks.routes.spec import RoutesSpec
from skyspan.testing.conformance.provider import ProviderCase, ProviderConformance
from skyspan.testing.conformance.source_rules import models_of
from skyspan.testing.gateway_world import GatewayWorld


def spec(*to: str, **settings: Any) -> RoutesSpec:
    east = {"host": "east-gw", "to": to or ["10.2.0.0/24"], "via": "198.18.1.1"}
    west = {"host": "west-gw", "to": ["10.1.0.0/24"], "interface": "eth0"}
    return RoutesSpec.model_validate({"routes": [east, west], **settings})


@pytest.mark.integration
class TestRoutes(ProviderConformance):
    @pytest_asyncio.fixture(loop_scope="module")
    async def case(
        self, tmp_path: Path, shared_sites: GatewayWorld, shared_bare: dict[str, str]
    ) -> AsyncIterator[ProviderCase]:
        case = ProviderCase(
            provider=RoutesProvider(),
            spec=spec(returns=[{"host": "west-gw", "to": ["10.1.0.0/24"]}]),
            changed=spec("10.2.0.0/25", "10.7.0.0/16"),
            slow_spec=spec(returns=[{"host": "west-gw", "to": ["10.66.0.0/16"]}], ready_within=60),
            world=stage_on(shared_sites, tmp_path),
            snapshot=shared_sites.state,
        )
        async with given_back(case, shared_sites, shared_bare):
            yield case

    async def test_no_secret_shows(self, case: ProviderCase) -> None:
        secret = [name for model in models_of(RoutesSpec) for name, info in model.model_fields.items() if _holds(info)]
        assert not secret, "its settings hold no secret that could show"

    async def test_no_secret_shows_in_an_error(self, case: ProviderCase) -> None:
        await self.test_no_secret_shows(case)


def _holds(info: Any) -> bool:
    return info.annotation is Secret or "Secret" in str(info.annotation)
