"""How a compose stage is driven: Compose says what the files mean, the daemon what there is, `up` joins the two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.model.change import NO_OUTPUTS, Action, Change, Observation, ResourceChange
from skyspan.model.diagnostic import Diagnostic
from skyspan.model.value import OutputValue, digest, masked
from skyspan.providers.compose import carry_out
from skyspan.providers.compose.bundle import bundle
from skyspan.providers.compose.compare import (
    SERVICE,
    containers_of,
    differences,
    refuse_missing,
    refuse_others,
)
from skyspan.providers.compose.project import Project
from skyspan.providers.compose.spec import ComposeSpec
from skyspan.providers.dockerengine import facts
from skyspan.providers.dockerengine.commands import Scope
from skyspan.providers.dockerengine.engine import Where, opened
from skyspan.providers.dockerengine.memory import Memory, forget, recall, remember, remember_with_end
from skyspan.providers.dockerengine.parse import Look
from skyspan.providers.dockerengine.preflight import findings
from skyspan.providers.dockerengine.ready import judge


class ComposeProvider:
    """Runs a Docker Compose project from the composition's files, on this machine, a host, or a daemon over TLS.

    On a host, the files that the project names go with it. What each service is made from stands as a digest on its
    containers, files that it mounts included, so that a plan can name the services that an apply would make anew.
    """

    kind = "compose"
    spec = ComposeSpec

    def sources(self, spec: ComposeSpec) -> tuple[str, ...]:
        """The Compose files, and what is shipped besides; what those name is looked at when they are read."""
        return (*spec.files, *spec.ship)

    async def preflight(self, settings: Mapping[str, Any], ctx: ReadContext) -> tuple[Diagnostic, ...]:
        """The docker command, where it is needed on this machine."""
        return tuple(findings(settings, ctx))

    async def observe(self, spec: ComposeSpec, ctx: ReadContext) -> Observation:
        memory = await recall(ctx.kept)
        if memory is None:
            return Observation.absent("it has not been made yet")
        project = Project.restore(memory.details["project"]) if "project" in memory.details else None
        async with opened(Where.of(spec), ctx, carry_out.secrets_of(spec)) as engine:
            name = carry_out.project_name(spec, ctx)
            asked = project if project is not None and project.name == name else Project(name, {}, {}, {})
            seen = await carry_out.look_at(asked, engine)
        found = _observation(project, seen, memory, spec, ctx)
        if found.exists and not found.drifted and _as_applied(spec, memory) and not memory.stopped:
            changed = _changed_files(memory, bundle(spec, ctx.folder).contents())
            found = replace(found, drifted=bool(changed), drift=changed)
        return found

    async def plan(self, spec: ComposeSpec, seen: Observation, ctx: ReadContext) -> Change:
        memory = await recall(ctx.kept) or Memory()
        files = bundle(spec, ctx.folder)
        contents = files.contents()
        leaving = _leaving(memory, spec, ctx)
        same = _as_applied(spec, memory) and contents == memory.details.get("contents") and not leaving
        if seen.exists and same and seen.healthy and not seen.drifted:
            return Change.none(seen)
        async with opened(Where.of(spec), ctx, carry_out.secrets_of(spec)) as engine:
            reading = await carry_out.read(spec, files, engine)
            project = carry_out.understood(reading, files, engine, carry_out.Task(spec, ctx), memory.seal)
            look = await carry_out.look_at(project, engine, Scope.PLAN)
        resources = differences(project, look)
        resources += tuple(ResourceChange(f"project {name} on {place.name}", Action.DESTROY) for place, name in leaving)
        reason = ("drifted" if seen.drifted else seen.reason) if same else "its settings or files changed"
        if memory.interrupted:
            reason = "an apply did not come to its end"
        asked = masked(spec.model_dump(mode="python"))
        return Change(
            Action.UPDATE if seen.exists else Action.CREATE,
            reason if seen.exists else seen.reason,
            resources,
            based_on=seen.fingerprint,
            meaning=digest([[item.record() for item in resources], contents, asked]),
            outputs=_certain(project, seen, resources) if not leaving else NO_OUTPUTS,
            payload=reading,
        )

    async def apply(self, spec: ComposeSpec, change: Change, ctx: StageContext) -> Observation:
        before = await recall(ctx.kept) or Memory()
        where = Where.of(spec)
        name = carry_out.project_name(spec, ctx)
        touched = tuple(dict.fromkeys([*before.details.get("names", ()), name]))
        memory = replace(before.at(where), stopped=False, details={**before.details, "names": list(touched)})
        files = bundle(spec, ctx.folder)
        contents = files.contents()
        same = _as_applied(spec, memory) and contents == memory.details.get("contents")
        async with opened(where, ctx, carry_out.secrets_of(spec)) as engine:
            reading = await carry_out.read(spec, files, engine, change.payload)
            project = carry_out.understood(reading, files, engine, carry_out.Task(spec, ctx), memory.seal)
            seen = await carry_out.look_at(project, engine, Scope.WHOLE)
            task = carry_out.ApplyTask(spec, ctx, reading.shape, seen)
            refuse_others(name, str(ctx.address), seen, where.name)
            refuse_missing(project, seen, where.name, pull=spec.pull)
            # Before anything is touched, so that destroy knows where to look; other settings do not count as applied.
            built = tuple(dict.fromkeys([*memory.details.get("built", ()), *project.built_tags]))
            memory = replace(memory, details={**memory.details, "built": list(built)})
            memory = memory if same else replace(memory, applied="")
            if memory != before:
                await remember(ctx.kept, memory)
            for place, old in _leaving(memory, spec, ctx):
                await carry_out.remove(place, old, ctx, volumes=False, images=built)
            found = differences(project, seen)
            if found or not same:
                await carry_out.up(project, found, files, engine, task)
            seen = await carry_out.wait(project, engine, task)
            details = {"project": project.record(), "contents": contents, "names": [name], "built": list(built)}
            done = replace(memory, places=(where,), applied=_settings(spec, memory), details=details)
            if done != memory:
                remember_with_end(ctx.kept, done)
            return _observation(project, seen, done, spec, ctx)

    async def destroy(self, spec: ComposeSpec, ctx: StageContext) -> None:
        memory = await recall(ctx.kept)
        if memory is None:
            return
        for place in memory.places:
            for name in memory.details["names"]:
                built = memory.details.get("built", ())
                await carry_out.remove(place, name, ctx, volumes=spec.remove_volumes, images=built)
        await forget(ctx.kept)

    async def stop(self, spec: ComposeSpec, ctx: StageContext) -> None:
        """Stop the services, those first that no other needs; networks and volumes stay."""
        memory = await recall(ctx.kept)
        if memory is None or memory.stopped:
            return
        await remember(ctx.kept, replace(memory, stopped=True))
        for place in memory.places:
            for name in memory.details["names"]:
                await carry_out.halt(place, name, ctx)

    async def start(self, spec: ComposeSpec, ctx: StageContext) -> Observation:
        """Start what was stopped, and wait until it is up."""
        return await self.apply(spec, Change(Action.UPDATE, "started"), ctx)


def _settings(spec: ComposeSpec, memory: Memory) -> str:
    """Changes whenever the settings ask for something else; the daemon's certificates and our patience do not count."""
    return digest(spec.model_dump(mode="python", exclude={"engine", "ready_within", "remove_volumes"}), memory.seal)


def _as_applied(spec: ComposeSpec, memory: Memory) -> bool:
    return memory.applied != "" and memory.applied == _settings(spec, memory)


def _leaving(memory: Memory, spec: ComposeSpec, ctx: ReadContext) -> tuple[tuple[Where, str], ...]:
    """Projects that the stage once made, by daemon and name, and that the settings no longer name."""
    now = (Where.of(spec).mark, carry_out.project_name(spec, ctx))
    names = memory.details.get("names", ())
    return tuple((place, name) for place in memory.places for name in names if (place.mark, name) != now)


def _changed_files(memory: Memory, contents: Mapping[str, str]) -> tuple[ResourceChange, ...]:
    before = memory.details.get("contents", {})
    changed = sorted(name for name in {*before, *contents} if before.get(name) != contents.get(name))
    return tuple(ResourceChange(f"file {name}", Action.UPDATE, "it is not what was applied") for name in changed)


def _observation(
    project: Project | None, seen: Look, memory: Memory, spec: ComposeSpec, ctx: ReadContext
) -> Observation:
    """What a look comes to. Differences are drift only where these settings are the ones that were applied."""
    owner = str(ctx.address)
    if not seen.owned(owner) and not seen.networks_of(owner):
        return Observation.absent("none of its containers is there")
    fingerprint = facts.fingerprint(seen, owner, stopped=memory.stopped)
    if project is None:
        return Observation(True, healthy=False, fingerprint=fingerprint, reason="it was not made whole")
    found = differences(project, seen) if _as_applied(spec, memory) and not memory.stopped else ()
    reason = "stopped" if memory.stopped else _trouble(project, seen)
    return Observation(
        exists=True,
        healthy=not reason,
        drifted=bool(found),
        fingerprint=fingerprint,
        reason=reason,
        outputs=_outputs(project, seen, owner, Where.of(spec).address(ctx)),
        drift=found,
    )


def _certain(project: Project, seen: Observation, found: tuple[ResourceChange, ...]) -> Mapping[str, OutputValue]:
    """The outputs that will have their value whatever becomes of the containers."""
    certain = {"project": OutputValue(project.name)}
    if seen.exists and not any(item.address.startswith("network ") for item in found) and "networks" in seen.outputs:
        certain["networks"] = seen.outputs["networks"]
    return certain


def _trouble(project: Project, seen: Look) -> str:
    """The first thing that is wrong, in words; empty when all is well."""
    for name, service in project.services.items():
        there = containers_of(name, project.name, seen)
        if len(there) < service.replicas:
            return f"service {name}: {len(there)} containers instead of {service.replicas}"
        for one in there:
            judged = judge(one, ends=service.ends)
            if not judged.ready:
                return f"service {name}: {judged.reason}"
    return ""


def _outputs(project: Project, seen: Look, owner: str, address: str) -> dict[str, OutputValue]:
    services: dict[str, Any] = {}
    endpoints: dict[str, Any] = {}
    for container in sorted(seen.owned(owner), key=lambda one: one.name):
        name = container.labels.get(SERVICE, container.name)
        services.setdefault(name, []).append(facts.container_facts(container))
        found = facts.endpoints(container, address)
        endpoints.setdefault(name, {})
        endpoints[name] = {**found, **endpoints[name]}
    networks = {
        key: facts.network_facts(there)
        for key, name in project.networks.items()
        if (there := seen.network(name)) is not None
    }
    return {
        "project": OutputValue(project.name),
        "services": OutputValue(services),
        "networks": OutputValue(networks),
        "endpoints": OutputValue(endpoints),
    }
