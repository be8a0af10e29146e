"""A traffic stage in a world of namespaces, driven as the engine drives it, and what of it there is on a machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from skyspan.model.change import Change, Observation
from skyspan.providers.traffic.provider import TrafficProvider
from skyspan.providers.traffic.spec import TrafficSpec
from skyspan.testing.gateway_world import Machine
from skyspan.testing.provider_world import ProviderWorld

ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}

_TRACES = """
find /var/lib/skyspan/traffic /root/.skyspan 2>/dev/null | grep -v -e /window -e /said -e /erred | sort || :
find /var/lib/skyspan/traffic -name pid 2>/dev/null | sort | xargs -r cat
for file in /proc/[0-9]*/environ; do tr '\\0' '\\n' < $file 2>/dev/null | grep SKYSPAN_TRAFFIC= || :; done | sort -u
"""


def spec(flows: dict[str, dict[str, Any]], **settings: Any) -> TrafficSpec:
    return TrafficSpec.model_validate({"flows": flows, **settings})


async def traces(machine: Machine) -> str:
    """What a stage leaves on a machine: files, recorded pids, marks of processes; not what each window changes."""
    return await machine.sh(_TRACES)


@dataclass
class Traffic:
    """A stage in the world, driven as the engine does it."""

    world: ProviderWorld
    provider: TrafficProvider = field(default_factory=TrafficProvider)

    async def look(self, settings: TrafficSpec) -> tuple[Observation, Change]:
        ctx = self.world.reading()
        seen = await self.provider.observe(settings, ctx)
        return seen, await self.provider.plan(settings, seen, ctx)

    async def up(self, settings: TrafficSpec) -> dict[str, Any]:
        """Apply it where there is something to do; the figures."""
        seen, change = await self.look(settings)
        if change.action.changes:
            seen = await self.provider.apply(settings, change, self.world.writing())
        assert seen.healthy, seen.reason
        flows: dict[str, Any] = seen.outputs["flows"].value
        return flows

    async def down(self, settings: TrafficSpec) -> None:
        await self.provider.destroy(settings, self.world.writing())
