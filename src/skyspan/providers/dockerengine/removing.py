"""Stops and removes what a stage made on a daemon, found by its label alone, and makes sure that it is gone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from skyspan.contracts.context import StageContext
from skyspan.model.change import Action
from skyspan.model.error import ToolFailedError
from skyspan.providers.dockerengine import commands
from skyspan.providers.dockerengine.commands import Scope, Sight
from skyspan.providers.dockerengine.engine import Engine, Where, opened
from skyspan.providers.dockerengine.parse import KEY, OWNER, Container, Look

STATES = Sight(scope=Scope.STATES)
"""A look at containers alone."""


async def remove_stage(place: Where, ctx: StageContext, *, volumes: bool, images: Callable[[str], bool]) -> None:
    """Remove the stage's containers and networks, images that it built, and volumes if so wished; absent is success.

    `images` tells by its name whether an image that was built for the stage is its own: others that are made from one
    of its inherit the label.
    """
    owner = str(ctx.address)
    async with opened(place, ctx, frozenset()) as engine:
        seen = await engine.look(f"{OWNER}={owner}", Sight(more=("volumes", "built")))
        containers, networks = seen.owned(owner), seen.networks_of(owner)
        built = [name for name in seen.built if images(name)]
        kept = [name for name, whose in seen.volumes.items() if whose == owner]
        gone = kept if volumes else []
        if kept and not volumes:
            ctx.report.line(f"kept on {place.name}: volume {', '.join(kept)} (`remove_volumes: true` removes them)")
        if not containers and not networks and not gone and not built:
            return
        items = [f"container {one.labels.get(KEY, one.name)}" for one in containers]
        items += [f"network {one.labels.get(KEY, one.name)}" for one in networks]
        items += [f"image {name}" for name in built]
        for item in items:
            ctx.report.progress(item, Action.DESTROY.value, "started")
        ids = [one.id for one in containers]
        await engine.do("removing", commands.remove(engine.words, ids, [one.id for one in networks], gone, built))
        left = _left(await engine.look(f"{OWNER}={owner}"), owner)
        if left:
            raise ToolFailedError(f"{left} on {place.name} could not be removed", hint="skyspan destroy again")
        for item in items:
            ctx.report.progress(item, Action.DESTROY.value, "done")


async def discard(images: Sequence[str], engine: Engine, ctx: StageContext) -> None:
    """Remove images that were built for the stage and that it needs no more; something else may use them still."""
    if images and not (await engine.attempt(commands.remove(engine.words, (), images=images))).ok:
        ctx.report.line(f"kept on {engine.where.name}, as something else uses it: image {', '.join(images)}")


async def stop_stage(place: Where, ctx: StageContext) -> None:
    """Stop the stage's containers, each within its own time; stopped or absent is success."""
    async with opened(place, ctx, frozenset()) as engine:
        running = to_stop(await engine.look(f"{OWNER}={ctx.address}", STATES), ctx)
        if running:
            await engine.do("stopping", commands.stop(engine.words, [one.id for one in running]))


def to_stop(seen: Look, ctx: StageContext) -> tuple[Container, ...]:
    """The containers of the stage that are not stopped yet; they are named in the log."""
    owned = seen.owned(str(ctx.address))
    running = tuple(one for one in owned if one.state not in ("exited", "created", "dead"))
    if running:
        ctx.report.line(f"stop: {', '.join(one.name for one in running)}; networks and volumes stay")
    return running


def _left(seen: Look, owner: str) -> str:
    return ", ".join([*(one.name for one in seen.owned(owner)), *(one.name for one in seen.networks_of(owner))])
