"""A wireguard stage between the gateways of a world, driven as the engine drives it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.support.driven import Driven
from tests.support.gateways import between

from skyspan.networks.wireguard.provider import WireguardProvider
from skyspan.networks.wireguard.spec import WireguardSpec
from skyspan.testing.gateway_world import GatewayWorld
from skyspan.testing.provider_world import ProviderWorld


def spec(east: dict[str, Any] | None = None, west: dict[str, Any] | None = None, **settings: Any) -> WireguardSpec:
    return WireguardSpec.model_validate({"between": between(east, west), "allow": ["icmp", "tcp/8080"], **settings})


@dataclass
class Link(Driven[WireguardSpec]):
    """A stage in the world, driven as the engine does it."""

    sites: GatewayWorld
    world: ProviderWorld
    provider: WireguardProvider = field(default_factory=WireguardProvider)

    @property
    def drives(self) -> WireguardProvider:
        return self.provider

    async def wg(self, gateway: str, *what: str) -> str:
        return await self.sites.machines[gateway].sh('wg show all "$@" | cut -f2-', *what)
