"""Makes the differences go away, in an order in which nothing stands in the way of anything."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from skyspan.contracts.context import StageContext
from skyspan.model.change import Action
from skyspan.model.error import ToolFailedError
from skyspan.providers.docker import commands
from skyspan.providers.docker.compare import Difference, differences, missing_networks
from skyspan.providers.docker.wanted import Wanted
from skyspan.providers.dockerengine.commands import Scope, remove
from skyspan.providers.dockerengine.engine import Engine
from skyspan.providers.dockerengine.parse import Look
from skyspan.providers.dockerengine.ready import until_ready

_AT_ONCE = 8
"""So many containers are made at the same time: a daemon gains nothing from more."""


async def provide(asked: Wanted, seen: Look, pull: str, engine: Engine, ctx: StageContext) -> Look:
    """Have the images there; a look that shows it. Raises StageError for one that cannot be had."""
    building = [one for name, one in asked.built.items() if not seen.images.get(name)]
    for one in building:
        ctx.report.progress(f"image {one.key}", Action.CREATE.value, "started", f"built from {one.given}")
        context = one.packed() if engine.where.host is not None else None
        command = commands.build(engine.words, asked.owner, one, context=context, fresh=pull == "always")
        await engine.do(f"building the image of container {one.key}", command)
        ctx.report.progress(f"image {one.key}", Action.CREATE.value, "done")
    lacking = tuple(image for image in asked.others_images if pull == "always" or not seen.images.get(image))
    if lacking:
        await engine.do(f"fetching {', '.join(lacking)}", commands.pull(engine.words, lacking))
    if not building and not lacking:
        return seen
    seen = await engine.look(asked.label, asked.sight(Scope.WHOLE))
    unseen = [one.key for one in building if not seen.images.get(one.name)]
    if unseen:
        raise ToolFailedError(
            f"the image of container {unseen[0]} was built, but the daemon on {engine.where.name} does not have it",
            hint="let docker build there use the daemon's own builder: docker buildx use default",
        )
    return seen


async def carry_out(asked: Wanted, seen: Look, engine: Engine, ctx: StageContext, within_s: float) -> Look:
    """Make what differs as it is to be, and wait until all is up; the look that shows it."""
    found = differences(asked, seen)
    for item in found:
        ctx.report.progress(item.resource.address, item.action.value, "started", item.note)
    await _clear(found, asked.owner, seen, engine)
    await _foundations(asked, found, engine)
    changed = {item.key: item for item in found if item.kind == "container" and item.action is not Action.DESTROY}

    async def look(everything: bool) -> Look:
        return await engine.look(asked.label, asked.sight(Scope.OWN if everything else Scope.STATES))

    async def glance(_: bool) -> Look:
        return await look(False)

    for number, level in enumerate(asked.levels):
        await _make_all(asked, [changed[key] for key in level if key in changed], seen, engine)
        later = {name for level in asked.levels[number + 1 :] for name in level}
        if later & set(changed):
            wanted = {asked.containers[key].name: asked.containers[key].ends for key in level}
            await until_ready(engine, wanted, within_s, glance, ctx)
    wanted = {one.name: one.ends for one in asked.containers.values()}
    seen = await until_ready(engine, wanted, within_s, look, ctx, before=seen)
    for item in found:
        ctx.report.progress(item.resource.address, item.action.value, "done")
    return seen


async def _clear(found: Sequence[Difference], owner: str, seen: Look, engine: Engine) -> None:
    """Remove what is not wanted any more or is to be made anew: all of it first, as ports and names are handed over."""
    gone = [item for item in found if item.action in (Action.DESTROY, Action.REPLACE)]
    if not gone:
        return
    named = {(item.kind, item.name) for item in gone}
    containers = [one.id for one in seen.owned(owner) if ("container", one.name) in named]
    networks = [one.id for one in seen.networks_of(owner) if ("network", one.name) in named]
    volumes = [item.name for item in gone if item.kind == "volume"]
    await engine.do("removing what is to go", remove(engine.words, containers, networks, volumes))


async def _foundations(asked: Wanted, found: Sequence[Difference], engine: Engine) -> None:
    """Networks and volumes, which the containers need."""
    making = [item for item in found if item.action in (Action.CREATE, Action.REPLACE)]
    keys = {item.key for item in making if item.kind == "network"}
    networks = [one for one in asked.networks if one.key in keys]
    volumes = [item.name for item in making if item.kind == "volume"]
    if networks or volumes:
        what = f"making {', '.join([*(f'network {one.key}' for one in networks), *volumes])}"
        await engine.do(what, commands.make_foundations(engine.words, asked.owner, networks, volumes))


async def _make(asked: Wanted, item: Difference, seen: Look, engine: Engine) -> None:
    one = asked.containers[item.key]
    there = seen.container(one.name)
    if item.action is Action.UPDATE and there is not None:
        lost = set(missing_networks(one, there))
        joins = [join for join in one.joins if join[-1] in lost]
        joins += [(*one.first_join, name) for name in lost - {join[-1] for join in joins}]
        command = commands.mend_container(engine.words, one.name, there.state, joins)
        await engine.do(f"bringing back container {one.key}", command)
        return
    await engine.do(f"making container {one.key}", commands.make_container(engine.words, one))


async def _make_all(asked: Wanted, items: Sequence[Difference], seen: Look, engine: Engine) -> None:
    """Make some at once, and wait for all, so that nothing goes on unseen; then raise the first failure."""
    free = asyncio.Semaphore(_AT_ONCE)

    async def one(item: Difference) -> None:
        async with free:
            await _make(asked, item, seen, engine)

    results = await asyncio.gather(*map(one, items), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
