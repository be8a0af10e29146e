"""The ipsec provider under the provider suite: real daemons between gateways in network namespaces."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.support.gateways import given_back, stage_on

from skyspan.model.secret import Secret
from skyspan.networks.ipsec.provider import IpsecProvider
from skyspan.networks.ipsec.spec import IpsecSpec
from skyspan.testing.conformance.provider import ProviderCase, ProviderConformance
from skyspan.testing.gateway_world import GatewayWorld

# Made for this test alone.
PSK = Secret('a "quoted" key # with = all {sorts} of characters')


def spec(west: tuple[str, ...] = ("10.2.0.0/24",), **settings: Any) -> IpsecSpec:
    east = {"host": "east-gw", "prefixes": ["10.1.0.0/24"]}
    return IpsecSpec.model_validate({"between": [east, {"host": "west-gw", "prefixes": west}], **settings})


@pytest.mark.integration
class TestIpsec(ProviderConformance):
    @pytest_asyncio.fixture(loop_scope="module")
    async def case(
        self, tmp_path: Path, shared_sites: GatewayWorld, shared_bare: dict[str, str]
    ) -> AsyncIterator[ProviderCase]:
        case = ProviderCase(
            provider=IpsecProvider(),
            spec=spec(allow=["icmp", "tcp/22"]),
            changed=spec(("10.2.0.0/24", "10.7.0.0/16"), auth="certificates", allow=["icmp", "udp/161"]),
            secret_spec=spec(psk=PSK),
            slow_spec=spec(expect=["10.2.0.10:81"], allow=["icmp"], ready_within=60),
            world=stage_on(shared_sites, tmp_path),
            snapshot=shared_sites.state,
        )
        async with given_back(case, shared_sites, shared_bare):
            yield case
