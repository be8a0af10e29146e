"""A wireguard stage between the gateways of a world, driven as the engine drives it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from skyspan.contracts.transport import Command, Effect
from skyspan.contracts.watch import Finding
from skyspan.model.change import Change, Observation
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
class Link:
    """A stage in the world, driven as the engine does it."""

    sites: GatewayWorld
    world: ProviderWorld
    provider: WireguardProvider = field(default_factory=WireguardProvider)

    async def look(self, settings: WireguardSpec) -> tuple[Observation, Change]:
        ctx = self.world.reading()
        seen = await self.provider.observe(settings, ctx)
        return seen, await self.provider.plan(settings, seen, ctx)

    async def up(self, settings: WireguardSpec) -> Observation:
        seen, change = await self.look(settings)
        return await self.provider.apply(settings, change, self.world.writing()) if change.action.changes else seen

    async def down(self, settings: WireguardSpec) -> None:
        await self.provider.destroy(settings, self.world.writing())

    async def diagnosed(self, settings: WireguardSpec) -> tuple[Finding, ...]:
        return await self.provider.diagnose(settings, self.world.reading())

    def written(self) -> list[Command]:
        return [command for command in self.world.commands if command.effect is Effect.WRITE]

    async def wg(self, gateway: str, *what: str) -> str:
        return await self.sites.machines[gateway].sh('wg show all "$@" | cut -f2-', *what)
