"""How a docker stage is driven: look at the daemon, work out which containers and networks differ, change those."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.model.change import NO_OUTPUTS, Action, Change, Observation
from skyspan.model.diagnostic import Diagnostic
from skyspan.model.error import SpecError
from skyspan.model.value import OutputValue, digest, masked, secrets_in
from skyspan.providers.docker import carry_out
from skyspan.providers.docker.building import is_ours, wanted_images
from skyspan.providers.docker.compare import Difference, differences, refuse_collisions
from skyspan.providers.docker.spec import DockerSpec
from skyspan.providers.docker.wanted import Wanted, wanted
from skyspan.providers.dockerengine import facts
from skyspan.providers.dockerengine.commands import Scope
from skyspan.providers.dockerengine.engine import Engine, Where, opened
from skyspan.providers.dockerengine.memory import Memory, forget, recall, remember, remember_with_end
from skyspan.providers.dockerengine.parse import KEY, Look
from skyspan.providers.dockerengine.preflight import findings
from skyspan.providers.dockerengine.ready import judge
from skyspan.providers.dockerengine.refusing import refuse_missing_images
from skyspan.providers.dockerengine.removing import discard, remove_stage, stop_stage


class DockerProvider:
    """Runs containers, and the networks and volumes between them, on this machine's Docker, a host's, or one over TLS.

    Images are there, are fetched, or are built from folders of the composition. Each thing is made, changed and removed
    by itself: a label holds the digest of what it was made from, and only what differs is made anew. What belongs to
    somebody else is never touched.
    """

    kind = "docker"
    spec = DockerSpec

    def sources(self, spec: DockerSpec) -> tuple[str, ...]:
        """The files that are put into containers, and the folders that images are built from."""
        folders = (one.build.context for one in spec.containers.values() if one.build is not None)
        return tuple(dict.fromkeys([*_files(spec), *folders]))

    async def preflight(self, settings: Mapping[str, Any], ctx: ReadContext) -> tuple[Diagnostic, ...]:
        """The docker command, where it is needed on this machine."""
        return tuple(findings(settings, ctx))

    async def observe(self, spec: DockerSpec, ctx: ReadContext) -> Observation:
        memory = await recall(ctx.kept)
        if memory is None:
            return Observation.absent("it has not been made yet")
        asked = self._wanted(spec, ctx, memory)
        async with opened(Where.of(spec), ctx, secrets_in(spec.model_dump())) as engine:
            return _observation(asked, await _look(asked, engine), memory, spec, ctx)

    async def plan(self, spec: DockerSpec, seen: Observation, ctx: ReadContext) -> Change:
        memory = await recall(ctx.kept) or Memory()
        asked = self._wanted(spec, ctx, memory)
        same = memory.applied == asked.settings(memory.seal) and not memory.leaving(Where.of(spec))
        if seen.exists and same and seen.healthy and not seen.drifted:
            return Change.none(seen)
        async with opened(Where.of(spec), ctx, secrets_in(spec.model_dump())) as engine:
            found = differences(asked, await _look(asked, engine, Scope.PLAN))
        left = [f"everything on {place.name}" for place in memory.leaving(Where.of(spec))]
        resources = (
            *(item.resource for item in found),
            *(Difference("stage", name, name, Action.DESTROY).resource for name in left),
        )
        reason = "drifted" if seen.drifted else seen.reason if same else "its settings or files changed"
        if memory.interrupted:
            reason = "an apply did not come to its end"
        return Change(
            Action.UPDATE if seen.exists else Action.CREATE,
            reason if seen.exists else seen.reason,
            resources,
            based_on=seen.fingerprint,
            meaning=digest([[item.record() for item in resources], masked(spec.model_dump(mode="python"))]),
            outputs=_certain(seen, found) if not left else NO_OUTPUTS,
        )

    async def apply(self, spec: DockerSpec, change: Change, ctx: StageContext) -> Observation:
        before = await recall(ctx.kept) or Memory()
        where = Where.of(spec)
        memory = before.at(where)
        asked = self._wanted(spec, ctx, memory)
        applied = asked.settings(memory.seal)
        secrets = secrets_in(spec.model_dump())
        async with opened(where, ctx, secrets) as engine:
            seen = await _look(asked, engine, Scope.WHOLE)
            refuse_collisions(asked, seen, where.name)
            if spec.pull == "never":
                refuse_missing_images(asked.others_images, seen, where.name)
            # Before anything is touched, so that destroy knows where to look; other settings do not count as applied.
            memory = replace(memory, applied=memory.applied if memory.applied == applied else "", stopped=False)
            if memory != before:
                await remember(ctx.kept, memory)
            for place in memory.leaving(where):
                await _remove(place, ctx, volumes=False)
            there = await carry_out.provide(asked, seen, spec.pull, engine, ctx)
            seen = await carry_out.carry_out(asked, there, engine, ctx, spec.ready_within)
            old = [name for name in there.built if is_ours(name, ctx.address) and name not in asked.built]
            await discard(old, engine, ctx)
            done = replace(memory, places=(where,), applied=applied)
            if done != memory:
                remember_with_end(ctx.kept, done)
            return _observation(asked, seen, done, spec, ctx)

    async def destroy(self, spec: DockerSpec, ctx: StageContext) -> None:
        memory = await recall(ctx.kept)
        if memory is None:
            return
        for place in memory.places:
            await _remove(place, ctx, volumes=spec.remove_volumes)
        await forget(ctx.kept)

    async def stop(self, spec: DockerSpec, ctx: StageContext) -> None:
        """Stop the containers; they, their networks and volumes stay."""
        memory = await recall(ctx.kept)
        if memory is None or memory.stopped:
            return
        await remember(ctx.kept, replace(memory, stopped=True))
        for place in memory.places:
            await stop_stage(place, ctx)

    async def start(self, spec: DockerSpec, ctx: StageContext) -> Observation:
        """Start what was stopped, and wait until it is up."""
        return await self.apply(spec, Change(Action.UPDATE, "started"), ctx)

    def _wanted(self, spec: DockerSpec, ctx: ReadContext, memory: Memory) -> Wanted:
        sources: dict[str, bytes] = {}
        for name in _files(spec):
            try:
                sources[name] = (ctx.folder / name).read_bytes()
            except OSError as error:
                raise SpecError(
                    f"the file {name!r} cannot be read: {error.strerror}",
                    hint="`source` is relative to the composition's folder",
                ) from error
        return wanted(spec, ctx, sources, wanted_images(spec, ctx, memory.seal), memory.seal)


def _files(spec: DockerSpec) -> tuple[str, ...]:
    named = (file.source for one in spec.containers.values() for file in one.files.values())
    return tuple(dict.fromkeys(name for name in named if name is not None))


async def _remove(place: Where, ctx: StageContext, *, volumes: bool) -> None:
    await remove_stage(place, ctx, volumes=volumes, images=lambda name: is_ours(name, ctx.address))


async def _look(asked: Wanted, engine: Engine, scope: Scope = Scope.OWN) -> Look:
    return await engine.look(asked.label, asked.sight(scope))


def _observation(asked: Wanted, seen: Look, memory: Memory, spec: DockerSpec, ctx: ReadContext) -> Observation:
    """What a look comes to. Differences are drift only where these settings are the ones that were applied."""
    if not seen.owned(asked.owner) and not seen.networks_of(asked.owner):
        return Observation.absent("none of its containers is there")
    as_applied = memory.applied == asked.settings(memory.seal)
    found = differences(asked, seen) if as_applied and not memory.stopped else ()
    reason = "stopped" if memory.stopped else _trouble(asked, seen, found)
    return Observation(
        exists=True,
        healthy=not reason,
        drifted=bool(found),
        fingerprint=facts.fingerprint(seen, asked.owner, stopped=memory.stopped),
        reason=reason,
        outputs=_outputs(asked, seen, Where.of(spec).address(ctx)),
        drift=tuple(item.resource for item in found),
    )


def _certain(seen: Observation, found: Sequence[Difference]) -> Mapping[str, OutputValue]:
    """The outputs that stay what they are whatever becomes of the containers."""
    if not seen.exists or any(item.kind == "network" for item in found):
        return NO_OUTPUTS
    return {"networks": seen.outputs["networks"]}


def _trouble(asked: Wanted, seen: Look, found: Sequence[Difference]) -> str:
    """The first thing that is wrong, in words; empty when all is well."""
    for key, one in asked.containers.items():
        judged = judge(seen.container(one.name), ends=one.ends)
        if not judged.ready:
            return f"container {key}: {judged.reason}"
    lost = next((item for item in found if item.kind in ("network", "volume")), None)
    return f"{lost.kind} {lost.key}: {lost.note or 'it is not there'}" if lost is not None else ""


def _outputs(asked: Wanted, seen: Look, address: str) -> dict[str, OutputValue]:
    containers: dict[str, Any] = {}
    places: dict[str, Any] = {}
    for container in sorted(seen.owned(asked.owner), key=lambda one: one.name):
        key = container.labels.get(KEY, container.name)
        containers[key] = facts.container_facts(container)
        places[key] = facts.endpoints(container, address)
    networks = {
        one.key: facts.network_facts(there) for one in asked.networks if (there := seen.network(one.name)) is not None
    }
    return {
        "containers": OutputValue(containers),
        "networks": OutputValue(networks),
        "endpoints": OutputValue(places),
    }
