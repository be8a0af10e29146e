"""The ipsec provider under the provider suite: real daemons between gateways in network namespaces."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from skyspan.model.secret import Secret
from skyspan.networks.ipsec.provider import IpsecProvider
from skyspan.networks.ipsec.spec import IpsecSpec
from skyspan.testing.conformance.provider import ProviderCase, ProviderConformance
from skyspan.testing.gateway_world import GatewayWorld
from skyspan.testing.provider_world import ProviderWorld
from skyspan.transports.local import LocalTransport

ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}

# Made for this test alone.
PSK = Secret('a "quoted" key # with = all {sorts} of characters')


def spec(west: tuple[str, ...] = ("10.2.0.0/24",), **settings: Any) -> IpsecSpec:
    east = {"host": "east-gw", "prefixes": ["10.1.0.0/24"]}
    return IpsecSpec.model_validate({"between": [east, {"host": "west-gw", "prefixes": west}], **settings})


@pytest.mark.integration
class TestIpsec(ProviderConformance):
    @pytest.fixture
    async def gateways(self) -> AsyncIterator[GatewayWorld]:
        world = await GatewayWorld.make(LocalTransport(ENV))
        yield world
        await world.close()

    @pytest.fixture
    def case(self, tmp_path: Path, gateways: GatewayWorld) -> ProviderCase:
        return ProviderCase(
            provider=IpsecProvider(),
            spec=spec(allow=["icmp", "tcp/22"]),
            changed=spec(("10.2.0.0/24", "10.7.0.0/16"), auth="certificates", allow=["icmp", "udp/161"]),
            secret_spec=spec(psk=PSK),
            slow_spec=spec(expect=["10.2.0.10:81"], allow=["icmp"], ready_within=60),
            world=ProviderWorld(tmp_path, gateways.gateways, hosts=gateways.hosts),
            snapshot=gateways.state,
        )
