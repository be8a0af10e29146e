"""Gateways joined by a real WireGuard link, for stages that route over it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.driven import Driven
from tests.support.gateways import gateways, stage_on

from skyspan.model.address import DeploymentAddress
from skyspan.model.change import Action, Change
from skyspan.networks.bgp.provider import BgpProvider
from skyspan.networks.bgp.spec import BgpSpec
from skyspan.networks.wireguard.provider import WireguardProvider
from skyspan.networks.wireguard.spec import WireguardSpec
from skyspan.testing.gateway_world import GatewayWorld, Machine
from skyspan.testing.provider_world import ProviderWorld

PAIR = DeploymentAddress("default", "proof")


@dataclass
class Joined:
    """Gateways with a link between them, and what its stage put out."""

    sites: GatewayWorld
    link: ProviderWorld
    settings: WireguardSpec
    outputs: Mapping[str, Any]

    @property
    def over(self) -> dict[str, Any]:
        """The link's facts, as a bgp stage takes them."""
        return {"interface": self.outputs["interface"], "addresses": self.outputs["addresses"]}

    @property
    def east(self) -> Machine:
        return self.sites.machines["east-gw"]

    @property
    def west(self) -> Machine:
        return self.sites.machines["west-gw"]


@asynccontextmanager
async def joined(folder: Path, sides: tuple[str, ...] = ("east", "west"), **settings: Any) -> AsyncIterator[Joined]:
    """East and west with 10.1.0.0/16 and 10.2.0.0/16 over a link that admits BGP, BFD and pings."""
    async with gateways(*sides) as sites:
        ends = [{"host": "east-gw", "prefixes": ["10.1.0.0/16"]}, {"host": "west-gw", "prefixes": ["10.2.0.0/16"]}]
        wanted = {"between": ends, "allow": ["icmp", "tcp/179", "udp/3784", "udp/4784"]} | settings
        spec = WireguardSpec.model_validate(wanted)
        world = stage_on(sites, folder / "link", address=PAIR.stage("link"))
        seen = await WireguardProvider().apply(spec, Change(Action.CREATE), world.writing())
        yield Joined(sites, world, spec, {name: output.value for name, output in seen.outputs.items()})


def bgp(link: Joined, east: dict[str, Any] | None = None, west: dict[str, Any] | None = None, **more: Any) -> BgpSpec:
    """East announces 10.1.0.0/24, west 10.2.0.0/24."""
    speakers = [
        {"host": "east-gw", "asn": 64512, "announce": ["10.1.0.0/24"]} | (east or {}),
        {"host": "west-gw", "asn": 64513, "announce": ["10.2.0.0/24"]} | (west or {}),
    ]
    return BgpSpec.model_validate({"speakers": speakers, "over": link.over} | more)


@dataclass
class Routing(Driven[BgpSpec]):
    """A bgp stage in the world, driven as the engine does it."""

    world: ProviderWorld
    provider: BgpProvider = field(default_factory=BgpProvider)

    @property
    def drives(self) -> BgpProvider:
        return self.provider
