"""How a containerlab stage is driven: read the topology, look at the host, let containerlab reconcile, repair the
rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.model.change import Action, Change, Observation, ResourceChange
from skyspan.model.diagnostic import Diagnostic, Position
from skyspan.model.error import SpecError, StageError
from skyspan.model.value import digest, masked, revealed
from skyspan.providers.containerlab import compare, hosts
from skyspan.providers.containerlab.commands import Place, place_of
from skyspan.providers.containerlab.executed import argv_of, stopped_commands
from skyspan.providers.containerlab.memory import Memory, forget, recall, remember
from skyspan.providers.containerlab.network import choose_management, refuse_overlap
from skyspan.providers.containerlab.observation import observation
from skyspan.providers.containerlab.render import with_management
from skyspan.providers.containerlab.repair import Sight, due, mending, settled_of
from skyspan.providers.containerlab.spec import ContainerlabSpec
from skyspan.providers.containerlab.template import Template, literal
from skyspan.providers.containerlab.wanted import (
    Renderer,
    Wanted,
    findings,
    missing_image,
    parsed,
    plain_exec,
    secrets_of,
    wanted_lab,
)
from skyspan.providers.lab.containers import Container, HostLook
from skyspan.providers.lab.topology import Management
from skyspan.providers.lab.waiting import until_ready
from skyspan.providers.masking import mask_secrets


@dataclass(frozen=True, slots=True)
class _Work:
    """One apply: the lab that is wanted, where, and what is kept of it from now on."""

    wanted: Wanted
    place: Place
    memory: Memory


class ContainerlabProvider:
    """Runs a network lab of containers on a host: reconciled node by node, its links watched and repaired."""

    kind = "containerlab"
    spec = ContainerlabSpec

    def sources(self, spec: ContainerlabSpec) -> tuple[str, ...]:
        """The topology with everything in its folder, when that is not the composition's own; what else it names is
        compared when looking."""
        if not isinstance(spec.topology, str):
            return spec.files
        folder = PurePosixPath(spec.topology).parent
        around = () if folder == PurePosixPath() or ".." in folder.parts else (str(folder),)
        return (spec.topology, *(str(folder / name) for name in spec.files), *around)

    async def preflight(self, settings: Mapping[str, Any], ctx: ReadContext) -> tuple[Diagnostic, ...]:
        """What is wrong with the topology as it is written; what other settings may put in is not asked for yet."""
        return tuple(
            Diagnostic(item.code, f"{item.where}: {item.summary}", Position(""), hint=item.hint)
            for item in findings(settings.get("topology"), settings.get("env") or {}, ctx.folder)
        )

    async def observe(self, spec: ContainerlabSpec, ctx: ReadContext) -> Observation:
        memory = await recall(ctx.kept)
        if memory is None:
            return Observation.absent("it has not been made yet")
        place = place_of(ctx.address)
        topology = parsed(memory.topology)
        seen = await hosts.look(memory.host, ctx, memory.lab, topology.others)
        found = hosts.ours(seen, place, memory.lab)
        if not found:
            return Observation.absent("none of its containers is there")
        changed = await _changed_files(spec, memory, ctx)
        host = ctx.hosts.get(memory.host) if memory.host else None
        return observation(topology, memory, hosts.with_others(found, seen, topology), host, spec.exec, changed)

    async def plan(self, spec: ContainerlabSpec, seen: Observation, ctx: ReadContext) -> Change:
        try:
            return await self._plan(spec, seen, ctx)
        except StageError as error:
            raise _without_secrets(error, spec) from error

    async def _plan(self, spec: ContainerlabSpec, seen: Observation, ctx: ReadContext) -> Change:
        memory = await recall(ctx.kept)
        wanted = await wanted_lab(spec, ctx.folder, _renderer(spec, memory, ctx))
        place = place_of(ctx.address)
        settings = _settings(spec, wanted)
        if memory is not None and memory.applied == settings and seen.exists and seen.healthy and not seen.drifted:
            return Change.none(seen)
        look = await hosts.look(spec.host, ctx)
        hosts.refuse_taken(look, place, wanted.topology.name, spec.host)
        if memory is None or not seen.exists:
            _management(spec, wanted, look, memory, ctx)
            return _change(Action.CREATE, seen.reason, compare.creation(wanted.topology), seen, spec)
        before = parsed(memory.topology)
        moved = _moved(spec, wanted, memory)
        if moved:
            listed = [ResourceChange(f"node {node.name}", Action.REPLACE) for node in wanted.topology.nodes]
            return _change(Action.REPLACE, moved, tuple(listed), seen, spec)
        listed = [*compare.differences(before, wanted.topology, memory.settled, wanted.shipment.nodes)]
        known = {item.address for item in listed}
        listed += [item for item in seen.drift if item.address not in known]
        reason = seen.reason or ("its settings changed" if memory.applied else "an apply did not come to its end")
        return _change(Action.UPDATE, reason, tuple(listed), seen, spec)

    async def apply(self, spec: ContainerlabSpec, change: Change, ctx: StageContext) -> Observation:
        try:
            return await self._apply(spec, ctx)
        except StageError as error:
            raise _without_secrets(error, spec) from error

    async def destroy(self, spec: ContainerlabSpec, ctx: StageContext) -> None:
        memory = await recall(ctx.kept)
        if memory is None:
            return
        await _remove(memory, place_of(ctx.address), ctx)
        await forget(ctx.kept)

    async def stop(self, spec: ContainerlabSpec, ctx: StageContext) -> None:
        """Stop the nodes; their links wait on the host and come back with them."""
        memory = await recall(ctx.kept)
        if memory is None:
            return
        found = hosts.ours(await hosts.look(memory.host, ctx, memory.lab), place_of(ctx.address), memory.lab)
        nodes = [node for node, item in found.items() if item.running]
        await remember(ctx.kept, replace(memory, stopped=True))
        await hosts.stop(place_of(ctx.address), memory.host, memory.file, nodes, spec.stop_within, ctx)

    async def _apply(self, spec: ContainerlabSpec, ctx: StageContext) -> Observation:
        before = await recall(ctx.kept)
        wanted = await wanted_lab(spec, ctx.folder, _renderer(spec, before, ctx))
        place = place_of(ctx.address)
        if before is not None and (why := _moved(spec, wanted, before)):
            ctx.report.line(f"removing the lab {before.lab}: {why}")
            await _remove(before, place, ctx)
            await forget(ctx.kept)
            before = None
        look = await hosts.look(spec.host, ctx, others=wanted.topology.others)
        hosts.refuse_taken(look, place, wanted.topology.name, spec.host)
        management = _management(spec, wanted, look, before, ctx)
        text = with_management(wanted.source, management)
        survey = await hosts.survey(place, spec.host, wanted.topology, ctx)
        if survey.missing and not spec.pull:
            raise missing_image(wanted.topology, survey.missing, hosts.where(spec.host))
        memory = Memory(
            spec.host,
            wanted.topology.name,
            text,
            wanted.file,
            wanted.content(text),
            management,
            settled=before.settled if before else {},
            rendered=wanted.rendered,
        )
        # Before the host is touched, so that destroy knows where to look; until its end nothing counts as applied.
        if memory != before:
            await remember(ctx.kept, memory)
        await hosts.pull(spec.host, survey.missing, ctx)
        parked = [node for node, item in hosts.ours(look, place, memory.lab).items() if item.name in survey.parked]
        if before is not None and parked and (not before.applied or before.content != memory.content):
            # containerlab reconciles what is stopped with the topology that it was stopped with, and no other.
            said = await hosts.start(place, spec.host, before.file, parked, ctx)
            look = await hosts.look(spec.host, ctx, others=wanted.topology.others)
            folder = place.made(before.file, before.lab)
            stopped = stopped_commands(said, parsed(before.topology), folder)
            await _run_in_nodes(stopped, spec, hosts.ours(look, place, before.lab), ctx)
        if survey.content != memory.content:
            archive = wanted.shipment.archive(wanted.file, literal(text))
            await hosts.ship(place, spec.host, memory.content, archive, ctx)
        work = _Work(wanted, place, memory)
        seen = await self._reconcile(spec, work, before, look, survey.parked, ctx)
        if spec.wait:
            await until_ready(spec.wait, hosts.lab_containers(seen), ctx.places.reach(spec.host), ctx)
            seen = await self._nodes(spec, work, ctx)
        done = replace(
            memory, applied=_settings(spec, wanted), settled=settled_of(seen, wanted.shipment.nodes), stopped=False
        )
        await remember(ctx.kept, done)
        host = ctx.hosts.get(spec.host) if spec.host else None
        return observation(wanted.topology, done, seen, host, spec.exec)

    async def _reconcile(
        self,
        spec: ContainerlabSpec,
        work: _Work,
        before: Memory | None,
        look: HostLook,
        parked: Sequence[str],
        ctx: StageContext,
    ) -> dict[str, Container]:
        """Mend what containerlab refuses to go on beside, let it reconcile, run what has to be run again; what is there
        then, by node."""
        memory, place = work.memory, work.place
        topology = work.wanted.topology
        own = hosts.ours(look, place, memory.lab)
        found = hosts.with_others(own, look, topology)
        unsure = before is not None and before.content != memory.content
        mend = mending(own, memory.settled, work.wanted.shipment.nodes, parked, unsure=unsure)
        await hosts.mend(place, spec.host, mend.removed, mend.started, ctx)
        if before is not None:
            changed = compare.changed_links(parsed(before.topology), topology)
            await hosts.unlink(place, spec.host, changed, found, ctx)
        said = await self._deploy(spec, work, found, ctx)
        seen = await self._nodes(spec, work, ctx)
        sight = Sight({node: item for node, item in found.items() if item.name not in mend.removed}, seen, parked)
        folder = place.made(memory.file, memory.lab)
        lines = due(topology, plain_exec(spec), memory.settled, sight)
        commands = (
            *stopped_commands(said, topology, folder),
            *((node, argv_of(line, node, folder)) for node, line in lines),
        )
        await _run_in_nodes(commands, spec, seen, ctx)
        # What is waited for is looked at after it.
        return await self._nodes(spec, work, ctx) if commands and not spec.wait else seen

    async def _deploy(
        self, spec: ContainerlabSpec, work: _Work, found: Mapping[str, Container], ctx: StageContext
    ) -> str:
        """Let containerlab reconcile; what it said."""
        place, file, topology = work.place, work.memory.file, work.wanted.topology
        try:
            return await hosts.deploy(place, spec.host, file, ctx)
        except StageError as error:
            if not hosts.disowned(error):
                raise
            ctx.report.line("making links to the host anew: containerlab does not know them again")
            await hosts.unlink(place, spec.host, [link for link in topology.links if link.kind != "veth"], found, ctx)
            return await hosts.deploy(place, spec.host, file, ctx)

    async def _nodes(self, spec: ContainerlabSpec, work: _Work, ctx: ReadContext) -> dict[str, Container]:
        """What there is by node now."""
        topology, lab = work.wanted.topology, work.memory.lab
        seen = await hosts.look(spec.host, ctx, lab, topology.others)
        return hosts.with_others(hosts.ours(seen, work.place, lab), seen, topology)


def _without_secrets(error: StageError, spec: ContainerlabSpec) -> StageError:
    """The same error; a line of the topology, or a tool's word, may hold what the settings hide."""
    secrets = secrets_of(spec)
    return type(error)(
        mask_secrets(error.summary, secrets),
        detail=mask_secrets(error.detail, secrets),
        hint=mask_secrets(error.hint, secrets),
        retry=error.retry,
    )


def _settings(spec: ContainerlabSpec, wanted: Wanted) -> str:
    """What was applied, as one digest: the settings and everything they name."""
    return digest([revealed(spec.model_dump(mode="python")), wanted.source.values, wanted.shipment.content])


def _moved(spec: ContainerlabSpec, wanted: Wanted, memory: Memory) -> str:
    """Why the lab has to be removed and made anew; empty when it can be reconciled."""
    if memory.host != spec.host:
        return f"it moves from {hosts.where(memory.host)} to {hosts.where(spec.host)}"
    if memory.lab != wanted.topology.name:
        return f"it is renamed from {memory.lab} to {wanted.topology.name}"
    before, after = parsed(memory.topology).management, wanted.topology.management
    given = {key: value for key, value in after.items() if value not in (None, "")}
    if any(before.get(key) != value for key, value in given.items()):
        return "its management network changes"
    if wanted.topology.sharing:
        return f"containerlab changes no lab in which a node ({wanted.topology.sharing}) shares another one's network"
    return ""


def _renderer(spec: ContainerlabSpec, memory: Memory | None, ctx: ReadContext) -> Renderer:
    """Has the lab's host render a template, when it is not the one that was rendered there last."""

    async def render(template: Template) -> str:
        kept = memory.rendered if memory is not None and memory.host == spec.host else None
        return kept.text if kept and kept.mark == template.mark else await hosts.render(template, spec.host, ctx)

    return render


def _management(
    spec: ContainerlabSpec, wanted: Wanted, look: HostLook, memory: Memory | None, ctx: ReadContext
) -> Management:
    management = choose_management(
        wanted.topology, look, memory.management if memory else None, spec.pool, str(ctx.address)
    )
    refuse_overlap(management, look, hosts.where(spec.host))
    return management


async def _changed_files(spec: ContainerlabSpec, memory: Memory, ctx: ReadContext) -> tuple[ResourceChange, ...]:
    """Nodes whose files, or whose topology, are no longer what was applied, though the settings are the same."""
    try:
        wanted = await wanted_lab(spec, ctx.folder, _renderer(spec, memory, ctx))
    except SpecError:
        return ()
    if not memory.applied or memory.applied == _settings(spec, wanted) or _moved(spec, wanted, memory):
        return ()
    return tuple(compare.differences(parsed(memory.topology), wanted.topology, memory.settled, wanted.shipment.nodes))


async def _run_in_nodes(
    commands: Iterable[tuple[str, tuple[str, ...]]],
    spec: ContainerlabSpec,
    containers: Mapping[str, Container],
    ctx: StageContext,
) -> None:
    """Run commands of `exec`, each in the node before it, one after the other; a node that went meanwhile is found
    missing by what looks next."""
    secrets = secrets_of(spec)
    for node, argv in commands:
        if node in containers:
            await hosts.run_in_node(spec.host, containers[node].name, argv, secrets, ctx)


async def _remove(memory: Memory, place: Place, ctx: StageContext) -> None:
    await hosts.sweep(place, memory, parsed(memory.topology), ctx)


def _change(
    action: Action, reason: str, resources: tuple[ResourceChange, ...], seen: Observation, spec: ContainerlabSpec
) -> Change:
    listed = [(item.address, item.action.value) for item in resources]
    # Stored in clear: what is secret among the settings does not enter.
    meaning = digest([action.value, listed, masked(spec.model_dump())])
    return Change(action, reason or "it is to be made", resources, based_on=seen.fingerprint, meaning=meaning)
