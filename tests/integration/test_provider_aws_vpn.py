"""The aws-vpn provider under the provider suite: real daemons, and a machine that plays the cloud."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.cloud_vpn import FACTS, make_world

from skyspan.networks.awsvpn.provider import AwsVpnProvider
from skyspan.networks.awsvpn.spec import AwsVpnSpec
from skyspan.testing.conformance.provider import ProviderCase, ProviderConformance
from skyspan.testing.gateway_world import GatewayWorld
from skyspan.testing.provider_world import ProviderWorld
from skyspan.transports.local import LocalTransport

ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


def spec(**settings: Any) -> AwsVpnSpec:
    given = {"host": "site-gw", "facts": FACTS, "prefixes": ["10.1.0.0/24"], "remote": ["10.2.0.0/24"]}
    return AwsVpnSpec.model_validate({**given, **settings})


@pytest.mark.integration
class TestAwsVpn(ProviderConformance):
    @pytest.fixture
    async def sites(self) -> AsyncIterator[GatewayWorld]:
        world = await make_world(LocalTransport(ENV))
        yield world
        await world.close()

    @pytest.fixture
    def case(self, tmp_path: Path, sites: GatewayWorld) -> ProviderCase:
        site = sites.machines["site-gw"]
        return ProviderCase(
            provider=AwsVpnProvider(),
            spec=spec(allow=["icmp", "tcp/22"]),
            changed=spec(remote=["10.2.0.0/24", "10.7.0.0/16"], dpd=9, allow=["icmp", "udp/161"]),
            secret_spec=spec(),
            slow_spec=spec(expect=["10.2.0.10:81"], facts={**FACTS, "tunnel2_address": "198.18.2.9"}),
            world=ProviderWorld(tmp_path, {"site-gw": site}, hosts=sites.hosts),
            snapshot=site.state,
        )
