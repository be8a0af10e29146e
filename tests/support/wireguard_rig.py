"""A wireguard stage between the gateways of a world, driven as the engine drives it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.support.driven import Driven

from skyspan.networks.wireguard.provider import WireguardProvider
from skyspan.networks.wireguard.spec import WireguardSpec
from skyspan.testing.gateway_world import GatewayWorld
from skyspan.testing.provider_world import ProviderWorld

ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


def spec(east: dict[str, Any] | None = None, west: dict[str, Any] | None = None, **settings: Any) -> WireguardSpec:
    ends = [
        {"host": "east-gw", "prefixes": ["10.1.0.0/24"]} | (east or {}),
        {"host": "west-gw", "prefixes": ["10.2.0.0/24"]} | (west or {}),
    ]
    return WireguardSpec.model_validate({"between": ends, "allow": ["icmp", "tcp/8080"], **settings})


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
