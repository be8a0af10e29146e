"""A tailscale stage in a tailnet of network namespaces, driven as the engine does it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skyspan.contracts.transport import Command, Effect
from skyspan.model.change import Change, Observation
from skyspan.model.secret import Secret
from skyspan.networks.tailscale.provider import TailscaleProvider
from skyspan.networks.tailscale.spec import TailscaleSpec
from skyspan.testing.provider_world import ProviderWorld
from skyspan.testing.tailnet_world import DOMAIN, SERVER, TailnetWorld, tools_path


def tools() -> str:
    """A PATH on which the programs are that `tools/build tailnet` makes."""
    found = [shutil.which(name) for name in ("headscale", "tailscale", "tailscaled")]
    assert all(found), "headscale, tailscale and tailscaled are needed: tools/build tailnet"
    return tools_path(Path(str(found[0])).parent)


def spec(**settings: Any) -> TailscaleSpec:
    base = {
        "hosts": ["app-1", "db-1"],
        "tailnet_domain": DOMAIN,
        "login_server": SERVER,
        "accept_dns": False,
        "install": {"method": "none", "min_version": "1.80"},
        "join_within": 15,
    }
    return TailscaleSpec.model_validate(base | settings)


@dataclass
class Stage:
    """A stage in the tailnet's world, driven as the engine does it."""

    tailnet: TailnetWorld
    world: ProviderWorld
    provider: TailscaleProvider = field(default_factory=TailscaleProvider)

    async def look(self, settings: TailscaleSpec) -> tuple[Observation, Change]:
        ctx = self.world.reading()
        seen = await self.provider.observe(settings, ctx)
        return seen, await self.provider.plan(settings, seen, ctx)

    async def up(self, settings: TailscaleSpec, key: str = "") -> Observation:
        self.world.variables = {"TS_AUTHKEY": Secret(key)} if key else {}
        seen, change = await self.look(settings)
        return await self.provider.apply(settings, change, self.world.writing()) if change.action.changes else seen

    async def down(self, settings: TailscaleSpec) -> None:
        await self.provider.destroy(settings, self.world.writing())

    def written(self) -> list[Command]:
        return [command for command in self.world.commands if command.effect is Effect.WRITE]
