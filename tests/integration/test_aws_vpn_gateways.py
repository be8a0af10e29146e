"""The customer gateway of a cloud-managed VPN on a host with Docker that may not be lost."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.support.cloud_vpn import FACTS, make_world
from tests.support.driven import DockerHost, Driven, LastWords, until
from tests.support.gateways import ENV

from skyspan.model.error import UnreachableError
from skyspan.networks.awsvpn.provider import AwsVpnProvider
from skyspan.networks.awsvpn.spec import AwsVpnSpec
from skyspan.networks.ipsec import scripts
from skyspan.testing.provider_world import ProviderWorld
from skyspan.transports.local import LocalTransport


@dataclass
class Vpn(Driven[AwsVpnSpec]):
    world: ProviderWorld
    provider: AwsVpnProvider = field(default_factory=AwsVpnProvider)

    @property
    def drives(self) -> AwsVpnProvider:
        return self.provider


@pytest.mark.integration
async def test_both_tunnels_pass_dockers_chains_and_are_taken_back_unless_confirmed(tmp_path: Path) -> None:
    sites = await make_world(LocalTransport(ENV))
    try:
        gateway, site = sites.machines["site-gw"], sites.machines["site"]
        vpn = Vpn(ProviderWorld(tmp_path, {"site-gw": gateway}, hosts=sites.hosts))
        docker = DockerHost(gateway, "nft")
        await docker.begin()
        bare, before = await docker.rules(), await gateway.state()
        known = {"host": "site-gw", "facts": FACTS, "prefixes": ["10.1.0.0/24"], "remote": ["10.2.0.0/24"]}
        settings = AwsVpnSpec.model_validate(known)
        hasty = settings.model_copy(update={"confirm_within": 2.0})
        lost = "site-gw cannot be reached any more since the link's change"
        with vpn.by(LastWords(gateway, scripts.CONFIRMED)), pytest.raises(UnreachableError, match=lost):
            await vpn.up(hasty)

        async def gone() -> bool:
            return "guard" not in await gateway.sh("ls /run/skyspan 2>/dev/null || :")

        await until(gone, 15)
        assert "skyspan" not in await gateway.sh("nft list tables")
        assert "charon" not in (await gateway.state()).partition("# processes")[2]

        assert (await vpn.up(settings)).healthy
        opened = await docker.opened()
        assert len(opened) == 8, "in and out for the cloud's network and inside address, of each tunnel"
        assert await site.pings("10.2.0.10")
        assert await sites.machines["cloud"].pings("10.1.0.10")
        await vpn.down(settings)
        assert (await docker.rules(), await gateway.state()) == (bare, before)
    finally:
        await sites.close()
