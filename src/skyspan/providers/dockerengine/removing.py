"""Stops and removes what a stage made on a daemon, found by its label alone, and makes sure that it is gone."""

from __future__ import annotations

from skyspan.contracts.context import StageContext
from skyspan.model.change import Action
from skyspan.model.error import ToolFailedError
from skyspan.providers.dockerengine import commands
from skyspan.providers.dockerengine.commands import Sight
from skyspan.providers.dockerengine.engine import Where, opened
from skyspan.providers.dockerengine.parse import KEY, Look


async def remove_stage(place: Where, label: str, ctx: StageContext, *, volumes: bool) -> None:
    """Remove containers and networks with a label (`name=value`), and volumes if so wished; absent is success."""
    owner = label.partition("=")[2]
    async with opened(place, ctx, frozenset()) as engine:
        seen = await engine.look(label, Sight(volumes=True))
        containers = seen.owned(owner)
        networks = [one for one in seen.networks if one.owner == owner]
        kept = [name for name, whose in seen.volumes.items() if whose == owner]
        gone = kept if volumes else []
        if kept and not volumes:
            ctx.report.line(f"kept on {place.name}: volume {', '.join(kept)} (`remove_volumes: true` removes them)")
        if not containers and not networks and not gone:
            return
        items = [f"container {one.labels.get(KEY, one.name)}" for one in containers]
        items += [f"network {one.labels.get(KEY, one.name)}" for one in networks]
        for item in items:
            ctx.report.progress(item, Action.DESTROY.value, "started")
        ids = [one.id for one in containers]
        await engine.do("removing", commands.remove(engine.words, ids, [one.id for one in networks], gone))
        left = _left(await engine.look(label), owner)
        if left:
            raise ToolFailedError(f"{left} on {place.name} could not be removed", hint="skyspan destroy again")
        for item in items:
            ctx.report.progress(item, Action.DESTROY.value, "done")


async def stop_stage(place: Where, label: str, ctx: StageContext) -> None:
    """Stop the containers with a label, each within its own time; stopped or absent is success."""
    async with opened(place, ctx, frozenset()) as engine:
        seen = await engine.look(label)
        running = [one for one in seen.owned(label.partition("=")[2]) if one.state not in ("exited", "created", "dead")]
        if not running:
            return
        ctx.report.line(f"stop: {', '.join(one.name for one in running)}; networks and volumes stay")
        await engine.do("stopping", commands.stop(engine.words, [one.id for one in running]))


def _left(seen: Look, owner: str) -> str:
    names = [one.name for one in seen.owned(owner)] + [one.name for one in seen.networks if one.owner == owner]
    return ", ".join(names)
