"""An ipsec stage between the gateways of a world, driven as the engine drives it."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import Any

from tests.support.driven import Driven
from tests.support.gateways import between

from skyspan.model.error import StageError
from skyspan.networks.ipsec.message import parse_message, sections_of, text_of
from skyspan.networks.ipsec.provider import IpsecProvider
from skyspan.networks.ipsec.spec import IpsecSpec
from skyspan.testing.gateway_world import GatewayWorld
from skyspan.testing.provider_world import ProviderWorld


def spec(east: dict[str, Any] | None = None, west: dict[str, Any] | None = None, **settings: Any) -> IpsecSpec:
    return IpsecSpec.model_validate({"between": between(east, west), "allow": ["icmp", "tcp/8080"], **settings})


@dataclass
class Link(Driven[IpsecSpec]):
    """A stage in the world, driven as the engine does it."""

    sites: GatewayWorld
    world: ProviderWorld
    provider: IpsecProvider = field(default_factory=IpsecProvider)

    @property
    def drives(self) -> IpsecProvider:
        return self.provider

    async def repaired(self, settings: IpsecSpec) -> tuple[str, float]:
        """Take one step of repair after the other until traffic passes: the last one, and how long it all took."""
        begun = time.monotonic()
        assert not await self.passes(settings), "there is nothing to repair"
        for step in self.provider.repairs(settings, self.world.reading()):
            with contextlib.suppress(StageError):
                await self.provider.repair(settings, step, self.world.writing())
            if await self.passes(settings):
                return f"{step.name} {step.host}", time.monotonic() - begun
        raise AssertionError(f"no step helped: {await self.diagnosed(settings)}")

    async def sessions(self, gateway: str) -> list[tuple[str, int]]:
        """The number of each IKE_SA and how many CHILD_SAs it has."""
        said = await self.sites.machines[gateway].sh("swanctl --list-sas --raw 2>/dev/null | grep ' event ' || :")
        found = []
        for line in said.splitlines():
            for session in sections_of(parse_message(line)).values():
                children = session["child-sas"]
                assert not isinstance(children, str | tuple)
                found.append((text_of(session, "uniqueid"), len(children)))
        return found

    async def assert_one_session(self) -> None:
        for name in self.sites.gateways:
            found = await self.sessions(name)
            assert len(found) == 1, f"{name} has {len(found)} sessions"
            assert found[0][1] == 1, f"{name} has {found[0][1]} sets of keys"
