"""How a netlab stage is driven: see what netlab would make of the topology, make it, have it validated, mend it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import yaml

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.contracts.transport import Stream
from skyspan.model.change import Action, Change, Observation, ResourceChange
from skyspan.model.diagnostic import Diagnostic, Position
from skyspan.model.error import (
    CredentialsError,
    NotReadyError,
    SpecError,
    ToolMissingError,
    UnreachableError,
)
from skyspan.model.value import digest
from skyspan.providers.lab.waiting import until_ready
from skyspan.providers.netlab import compare
from skyspan.providers.netlab.commands import Place
from skyspan.providers.netlab.compare import Difference, Way, by_node, damage
from skyspan.providers.netlab.failure import new_version, refuse_tools
from skyspan.providers.netlab.hosts import LabHost, Scene
from skyspan.providers.netlab.memory import Made, Memory, forget, recall, remember, unfinished
from skyspan.providers.netlab.observation import failing, lines, nodes_of, observation
from skyspan.providers.netlab.package import Package, packed, sources
from skyspan.providers.netlab.placing import placed, unplaced
from skyspan.providers.netlab.spec import NetlabSpec

_CLAIMS = 5
"""So many times another number is tried when stages choose the same one at the same time."""


@dataclass(frozen=True, slots=True)
class _Planned:
    """What netlab would make, from the plan for the apply that follows it, and what that was made from."""

    wanted: str
    made: Made


class NetlabProvider:
    """Runs a network lab out of a netlab topology, in containers or on devices that exist.

    One folder, number and management network per lab keeps it apart from all others of its host. Outputs are its
    facts: nodes, links, addresses, routing, BGP neighbours, the prefixes that it announces, how its tests went.
    """

    kind = "netlab"
    spec = NetlabSpec

    def sources(self, spec: NetlabSpec) -> tuple[str, ...]:
        """The topology and its files; what else it names is compared when looking."""
        return sources(spec)

    async def preflight(self, settings: Mapping[str, Any], ctx: ReadContext) -> tuple[Diagnostic, ...]:
        """The files that are named. What the lab's host lacks is said when it is looked at, before it is touched."""
        named = [settings.get("topology"), *(settings.get("files") or ())]
        return tuple(
            Diagnostic("missing-file", f"no file {name!r} beside the composition", Position(""))
            for name in named
            if isinstance(name, str) and not (ctx.folder / name).exists()
        )

    async def observe(self, spec: NetlabSpec, ctx: ReadContext) -> Observation:
        memory = await recall(ctx.kept)
        if memory is None:
            return Observation.absent("it has not been made yet")
        if memory.made is None or not memory.applied:
            return Observation.absent("an apply did not come to its end")
        scene = await LabHost(spec, memory.host, ctx).scene(memory.place, docker=bool(memory.made.clab))
        if scene.survey.owner != memory.place.owner:
            return Observation.absent(f"its folder {memory.place.folder} is gone from the host")
        if scene.survey.version != memory.version:
            ctx.report.line(
                f"{new_version(memory.version, scene.survey.version, spec.host or 'here').summary}", Stream.ERR
            )
        return observation(spec, memory, memory.made, scene, ctx, changed=_changed_files(spec, memory, ctx))

    async def plan(self, spec: NetlabSpec, seen: Observation, ctx: ReadContext) -> Change:
        memory = await recall(ctx.kept)
        package = packed(spec, ctx.folder)
        if memory is None or not seen.exists:
            return await _creation(spec, package, memory, seen, ctx)
        host = LabHost(spec, spec.host, ctx)
        scene = await host.scene(memory.place, networks=True, docker=not _external(spec, package))
        place = memory.place
        if memory.host == spec.host:
            place = _placed(spec, package, memory.place, scene)
        wanted = _wanted(spec, package, place)
        if memory.stopped and wanted == memory.applied:
            return _change(Action.UPDATE, "stopped", (), seen, wanted)
        if scene.survey.version != memory.version and memory.host == spec.host:
            if spec.new_version == "recreate":
                reason = f"made by netlab {memory.version}, and {host.where} has {scene.survey.version}: made anew"
                return _change(Action.REPLACE, reason, (), seen, wanted)
            if wanted != memory.applied or seen.drifted:
                raise new_version(memory.version, scene.survey.version, host.where)
        if wanted == memory.applied:
            if seen.drifted:
                return _change(Action.UPDATE, "drifted", seen.drift, seen, wanted)
            if memory.checked != _checks(spec):
                return _change(Action.UPDATE, "its tests and waits are run", (), seen, wanted)
            return Change.none(seen)
        if place != memory.place or memory.host != spec.host or memory.made is None:
            return _change(Action.REPLACE, "another place for the lab: it is made anew as a whole", (), seen, wanted)
        made = await host.trial(place, package)
        found = compare.difference(memory.made, made)
        action = Action.REPLACE if found.way is Way.REPLACE else Action.UPDATE
        change = _change(action, found.reason, found.changes, seen, wanted)
        return replace(change, payload=_Planned(wanted, made))

    async def apply(self, spec: NetlabSpec, change: Change, ctx: StageContext) -> Observation:
        package = packed(spec, ctx.folder)
        memory = await self._at_its_host(spec, await recall(ctx.kept), ctx)
        host = LabHost(spec, spec.host, ctx)
        before = memory.place if memory is not None else None
        external = _external(spec, package)
        scene = await host.scene(before or unplaced(str(ctx.address)), networks=True, docker=not external)
        refuse_tools(scene.survey, host.where, spec.program, external=external)
        memory = await _claimed(spec, package, memory, scene, host, ctx)
        wanted = _wanted(spec, package, memory.place)
        made = memory.made
        fresh = made is None or memory.applied == "" or scene.survey.owner != memory.place.owner
        anew = fresh or _made_anew(memory, scene, spec, host)
        known = _known(change, wanted)
        if made is None or anew:
            memory = await _make(package, memory, known, scene, host, ctx)
        elif memory.applied != wanted:
            known = known or await host.trial(memory.place, package)
            memory = await _update(package, memory, (made, known), scene, host, ctx)
        elif memory.stopped:
            memory = await _begin(memory, made, host, ctx)
        else:
            memory = await _mend(memory, made, scene, host, ctx)
        return await self._finished(spec, replace(memory, applied=wanted), host, ctx)

    async def destroy(self, spec: NetlabSpec, ctx: StageContext) -> None:
        memory = await recall(ctx.kept)
        if memory is None:
            return
        host = LabHost(spec.model_copy(update={"program": memory.program}), memory.host, ctx)
        ctx.report.progress(f"lab {memory.place.name}", Action.DESTROY.value, "started")
        await host.remove(memory.place, memory.made, ctx)
        ctx.report.progress(f"lab {memory.place.name}", Action.DESTROY.value, "done")
        await forget(ctx.kept)

    async def stop(self, spec: NetlabSpec, ctx: StageContext) -> None:
        """Take the lab down and keep its files: what was changed inside nodes by hand is lost."""
        memory = await recall(ctx.kept)
        if memory is None or memory.stopped or not memory.applied:
            return
        await LabHost(spec, memory.host, ctx).down(memory.place, memory.made, ctx)
        await remember(ctx.kept, replace(memory, stopped=True, started={}))

    async def start(self, spec: NetlabSpec, ctx: StageContext) -> Observation:
        """Bring the lab up again as it was, configured and validated."""
        return await self.apply(spec, Change(Action.UPDATE, "started"), ctx)

    async def _at_its_host(self, spec: NetlabSpec, memory: Memory | None, ctx: StageContext) -> Memory | None:
        """What is remembered, unless the lab is to be elsewhere: then it is removed from where it was."""
        if memory is None or memory.host == spec.host:
            return memory
        await self.destroy(spec, ctx)
        return None

    async def _finished(self, spec: NetlabSpec, memory: Memory, host: LabHost, ctx: StageContext) -> Observation:
        """Keep what was done, then prove that it works: a lab that is there but not ready is not made again."""
        made = memory.made
        assert made is not None, "what was applied was made"
        scene = await host.scene(memory.place, docker=bool(made.clab))
        containers = by_node(scene.look, memory.place.name)
        before = memory
        memory = replace(
            memory,
            version=scene.survey.version,
            snapshot=scene.survey.snapshot,
            started={node: item.started_at for node, item in containers.items()},
            stopped=False,
        )
        if memory != before or memory.checked != _checks(spec):
            await remember(ctx.kept, memory)
        lost = damage(memory, scene.survey, scene.look)
        if lost.any:
            raise NotReadyError(
                f"the lab came up, but {lost.drift[0].address}: {lost.drift[0].note}",
                detail="\n".join(f"{item.address}: {item.note}" for item in lost.drift),
                hint="its containers' logs say more: docker logs CONTAINER",
            )
        if memory.checked != _checks(spec):
            memory = await _prove(spec, memory, made, host, ctx)
        return observation(spec, memory, made, scene, ctx)


async def _creation(
    spec: NetlabSpec, package: Package, memory: Memory | None, seen: Observation, ctx: ReadContext
) -> Change:
    """The nodes and links that there will be, where the host can tell already."""
    host = LabHost(spec, spec.host, ctx)
    external = _external(spec, package)
    reason = seen.reason
    planned = None
    try:
        before = memory.place if memory is not None and memory.host == spec.host else None
        scene = await host.scene(before or unplaced(str(ctx.address)), networks=True, docker=not external)
        refuse_tools(scene.survey, host.where, spec.program, external=external)
        place = _placed(spec, package, before, scene, str(ctx.address))
        planned = _Planned(_wanted(spec, package, place), await host.trial(place, package))
    except (UnreachableError, ToolMissingError, CredentialsError) as error:
        # An earlier stage of this run may bring the host, or what it lacks.
        reason = f"{reason}; what it will hold cannot be told yet: {error.summary}"
    found = compare.creation(planned.made.facts) if planned is not None else ()
    return replace(_change(Action.CREATE, reason, found, seen, package.digest), payload=planned)


def _change(
    action: Action, reason: str, resources: tuple[ResourceChange, ...], seen: Observation, wanted: str
) -> Change:
    listed = [(item.address, item.action.value) for item in resources]
    return Change(action, reason, resources, based_on=seen.fingerprint, meaning=digest([action.value, listed, wanted]))


def _known(change: Change, wanted: str) -> Made | None:
    """What netlab will make, where the plan has seen just that."""
    planned = change.payload
    return planned.made if isinstance(planned, _Planned) and planned.wanted == wanted else None


def _external(spec: NetlabSpec, package: Package) -> bool:
    """Whether the lab is one of devices that exist: so the settings say, or else the topology."""
    if spec.provider is not None:
        return spec.provider == "external"
    try:
        topology = yaml.safe_load(package.files[package.topology][1])
    except yaml.YAMLError:
        return False
    return isinstance(topology, dict) and topology.get("provider") == "external"


def _placed(spec: NetlabSpec, package: Package, before: Place | None, scene: Scene, owner: str = "") -> Place:
    name = before.owner if before is not None else owner
    return placed(spec, name, before, scene.survey, scene.look, external=_external(spec, package))


def _wanted(spec: NetlabSpec, package: Package, place: Place) -> str:
    """A digest of everything that the lab is made from."""
    settings = spec.model_dump(
        mode="json", include={"provider", "images", "device", "settings", "restricted", "capabilities", "configure"}
    )
    return digest([package.digest, settings, place.number, place.name, place.management])


def _changed_files(spec: NetlabSpec, memory: Memory, ctx: ReadContext) -> bool:
    """Whether a file of the topology's is no longer what was applied. Not told where there are none any more, as when
    a lab is looked at without its composition."""
    try:
        return packed(spec, ctx.folder).digest != memory.package
    except SpecError:
        return False


def _checks(spec: NetlabSpec) -> str:
    return digest([spec.validation, [wait.model_dump(mode="json") for wait in spec.wait]])


async def _claimed(
    spec: NetlabSpec, package: Package, memory: Memory | None, scene: Scene, host: LabHost, ctx: StageContext
) -> Memory:
    """The lab's place, remembered before it is touched, and marked on the host. A lab that is to be called otherwise,
    or to have another network, is removed first."""
    before = memory.place if memory is not None else None
    place = _placed(spec, package, before, scene, str(ctx.address))
    if memory is not None and before is not None and place != before:
        await remember(ctx.kept, unfinished(memory))
        await host.remove(before, memory.made, ctx)
        memory = None
    for attempt in range(_CLAIMS):
        if memory is None or memory.place != place:
            memory = Memory(place, spec.host, spec.program)
            await remember(ctx.kept, memory)
        if scene.survey.owner == place.owner and before == place:
            return memory
        if not await host.claim(place, ctx):
            return memory
        ctx.report.line(f"claim: another lab took number {place.number} or its network just now; attempt {attempt + 2}")
        scene = await host.scene(place, networks=True, docker=bool(place.management))
        place = _placed(spec, package, None, scene, place.owner)
    raise NotReadyError(
        f"no number for the lab on {host.where}: other labs take them at the same time", hint="try again"
    )


def _made_anew(memory: Memory, scene: Scene, spec: NetlabSpec, host: LabHost) -> bool:
    """Whether netlab's record of the lab is of no use: of another version, changed or gone. Raises StageError where
    the settings leave that to people."""
    if scene.survey.version != memory.version:
        if spec.new_version == "refuse":
            raise new_version(memory.version, scene.survey.version, host.where)
        return True
    return scene.survey.snapshot != memory.snapshot


async def _make(
    package: Package, memory: Memory, known: Made | None, scene: Scene, host: LabHost, ctx: StageContext
) -> Memory:
    """The whole lab, in place of whatever is left of an earlier one; `known` is what netlab will make, if seen."""
    left = memory.made is not None or scene.survey.locked or bool(by_node(scene.look, memory.place.name))
    memory = unfinished(memory)
    if left:
        await remember(ctx.kept, memory)
        await host.down(memory.place, memory.made, ctx)
    if left or memory.package != package.digest or scene.survey.shipped != package.digest:
        await host.ship(memory.place, package, ctx)
    made = await host.create(memory.place, package, known, ctx)
    memory = replace(memory, made=made, package=package.digest, checked="", report={}, started={})
    await remember(ctx.kept, memory)
    await host.require_images(memory.place, made)
    await host.up(memory.place, made, ctx)
    return memory


async def _update(
    package: Package, memory: Memory, step: tuple[Made, Made], scene: Scene, host: LabHost, ctx: StageContext
) -> Memory:
    """From the lab that is there to the one that is wanted (`step`), the shortest way there is; one that has lost
    something is made anew."""
    old, wanted = step
    await host.require_images(memory.place, wanted)
    found: Difference = compare.difference(old, wanted)
    was_stopped = memory.stopped
    whole = found.way is Way.REPLACE or was_stopped or damage(memory, scene.survey, scene.look).any
    memory = unfinished(memory)
    await remember(ctx.kept, memory)
    if whole and not was_stopped:
        await host.down(memory.place, old, ctx)
    await host.ship(memory.place, package, ctx)
    made = await host.create(memory.place, package, wanted, ctx)
    memory = replace(memory, made=made, package=package.digest, checked="", report={}, started={})
    await remember(ctx.kept, memory)
    if whole:
        await host.up(memory.place, made, ctx)
    elif found.nodes:
        peers = [peer for node in found.nodes for peer in compare.forgetful(made.facts, node)]
        configured = tuple(dict.fromkeys((*found.nodes, *peers)))
        await host.deploy(memory.place, made, found.nodes, configured, ctx)
    return memory


async def _begin(memory: Memory, made: Made, host: LabHost, ctx: StageContext) -> Memory:
    """Start a lab that was stopped."""
    await host.up(memory.place, made, ctx)
    return replace(memory, checked="", started={})


async def _mend(memory: Memory, made: Made, scene: Scene, host: LabHost, ctx: StageContext) -> Memory:
    """Repair what was lost, by the node where that can be."""
    lost = damage(memory, scene.survey, scene.look)
    if not lost.any and scene.survey.locked:
        return memory
    for item in lost.drift:
        ctx.report.line(f"{item.address}: {item.note}")
    if lost.whole or not scene.survey.locked:
        await host.down(memory.place, made, ctx)
        await host.up(memory.place, made, ctx)
    else:
        await host.deploy(memory.place, made, lost.remade, lost.configured, ctx)
    return replace(memory, checked="", started={})


async def _prove(spec: NetlabSpec, memory: Memory, made: Made, host: LabHost, ctx: StageContext) -> Memory:
    """What the lab has to show before it counts as ready: what is waited for, and the topology's own tests."""
    await until_ready(spec.wait, nodes_of(made), ctx.places.reach(host.host), ctx)
    report: Mapping[str, Any] = {}
    if spec.validation != "skip" and made.facts.tests and spec.configure:
        report = await host.validate(memory.place, made)
    for line in lines(report):
        ctx.report.line(f"validate: {line}")
    refused = spec.validation == "required" and report.get("result") == "failed"
    memory = replace(memory, report=report, checked="" if refused else _checks(spec))
    await remember(ctx.kept, memory)
    if refused:
        raise NotReadyError(
            f"validation failed: {failing(report)}",
            detail="\n".join(lines(report)),
            hint="the lab runs: look into it, then `skyspan up` runs the tests again; `validation: report` only tells",
        )
    return memory
