"""How a bgp stage is driven: look at the speakers, check what they are to run, switch, prove it by traffic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.contracts.watch import Finding, Passage, Repair
from skyspan.model.change import Action, Change, Observation, ResourceChange
from skyspan.model.error import NotReadyError, StageError
from skyspan.model.secret import Secret
from skyspan.networks.bgp import compare, diagnosis, frr, hosts, watch
from skyspan.networks.bgp.compare import Made
from skyspan.networks.bgp.memory import Memory, forget, recall, remember
from skyspan.networks.bgp.observation import Look, certain_outputs, observation
from skyspan.networks.bgp.parse import Survey
from skyspan.networks.bgp.ready import Way, legs_of, ping_legs, sites_of, ways_between
from skyspan.networks.bgp.speaking import Instance, identity_of, plan_instances, settings_digest
from skyspan.networks.bgp.spec import BgpSpec
from skyspan.networks.legs import Leg, summary
from skyspan.networks.lifecycle import Removal, Wish, change_to, remove_each, told
from skyspan.networks.looking import all_of, digest_of
from skyspan.networks.patience import Patience


@dataclass(frozen=True, slots=True)
class _Work:
    """What one speaker needs: `change` None when its daemon is to be started anew."""

    instance: Instance
    made: Made
    seen: Survey
    change: str | None


class BgpProvider:
    """Exchanges exactly the declared prefixes between hosts by BGP, over a link that another stage made.

    Every host runs a daemon of its own for each stage: what the host's own BIRD or FRR does is never touched. A new
    configuration is checked on every host before any of them switches, and a change of prefixes keeps the sessions.
    """

    kind = "bgp"
    spec = BgpSpec

    async def observe(self, spec: BgpSpec, ctx: ReadContext) -> Observation:
        memory = await recall(ctx.kept)
        if memory is None:
            return Observation.absent("it has not been made yet")
        instances = plan_instances(spec, ctx.address, ctx.hosts)
        look = Look(instances, await hosts.survey(instances, ctx))
        if not look.present():
            return Observation.absent("no daemon of this stage runs")
        legs, _, _ = await _legs(spec, look, ctx)
        for leg in legs:
            if not leg.ok:
                ctx.report.line(leg.line())
        return observation(look, legs, as_applied=memory.applied == settings_digest(spec))

    async def plan(self, spec: BgpSpec, seen: Observation, ctx: ReadContext) -> Change:
        instances = plan_instances(spec, ctx.address, ctx.hosts)
        memory = await recall(ctx.kept) or Memory()

        async def differences() -> Sequence[ResourceChange]:
            return Look(instances, await hosts.survey(instances, ctx)).differences()

        leaving = (f"{host}: routing daemon" for host in _leaving(memory, instances))
        wish = Wish(
            settings=settings_digest(spec),
            applied=memory.applied,
            creation=tuple(item for instance in instances for item in compare.creation(instance)),
            leaving=tuple(ResourceChange(address, Action.DESTROY) for address in leaving),
            outputs=certain_outputs(instances),
        )
        return await change_to(wish, seen, differences)

    async def apply(self, spec: BgpSpec, change: Change, ctx: StageContext) -> Observation:
        instances = plan_instances(spec, ctx.address, ctx.hosts)
        settings = settings_digest(spec)
        for item in (item for instance in instances for item in instance.conversations):
            if item.password is not None:
                ctx.report.conceal(item.password)
        before = await recall(ctx.kept) or Memory()
        seen = await hosts.survey(instances, ctx)
        for instance, survey in zip(instances, seen, strict=True):
            compare.refuse_missing_tools(instance, survey)
            compare.refuse_collisions(instance, survey)
        wanted = tuple(instance.host for instance in instances)
        # Before the first host is touched, so that destroy knows where to look; other settings do not count as applied.
        applied = before.applied if before.applied == settings else ""
        memory = replace(before, places=tuple(dict.fromkeys((*before.places, *wanted))), applied=applied)
        if memory != before:
            await remember(ctx.kept, memory)
        leaving = _leaving(before, instances)
        await all_of(hosts.remove(host, identity_of(ctx.address), str(ctx.address), ctx) for host in leaving)
        work = [_work(instance, survey, before) for instance, survey in zip(instances, seen, strict=True)]
        needed = [item for item in work if [*compare.differences(item.instance, item.seen)]]
        try:
            await all_of(hosts.prepare(item.instance, item.made, ctx) for item in needed)
        except StageError:
            await all_of(hosts.discard(item.instance, ctx) for item in needed)
            raise
        try:
            await all_of(_switch(item, ctx) for item in needed)
            look, legs, sites = await _until_ready(spec, instances, ctx)
        except StageError:
            if before.applied and before.applied != settings:
                await all_of(hosts.back(item.instance, item.made, ctx) for item in needed)
            raise
        texts = {item.instance.host: item.made.config(item.instance) for item in work}
        done = Memory(wanted, texts, sites, settings)
        if done != memory:
            await remember(ctx.kept, done)
        return observation(look, legs, as_applied=True)

    async def destroy(self, spec: BgpSpec, ctx: StageContext) -> None:
        await take_away(ctx)

    async def stop(self, spec: BgpSpec, ctx: StageContext) -> None:
        """End the daemons, which withdraws their routes; files stay."""
        await suspend(ctx)

    async def start(self, spec: BgpSpec, ctx: StageContext) -> Observation:
        """Bring the sessions back, and prove them."""
        return await self.apply(spec, Change(Action.UPDATE, "started"), ctx)

    def describe_link(self, spec: BgpSpec) -> Mapping[str, Any]:
        """The speakers with what they announce, and what must be able to pass between them."""
        ends = [{"host": speaker.host, "prefixes": list(speaker.announce)} for speaker in spec.speakers]
        return {"ends": ends, "allow": [f"tcp/{spec.port}", *(["udp/3784"] if spec.detection else [])]}

    async def probe(self, spec: BgpSpec, ctx: ReadContext) -> tuple[Passage, ...]:
        """A ping between the sites, once in each direction."""
        return await watch.probe(spec, ctx)

    async def diagnose(self, spec: BgpSpec, ctx: ReadContext) -> tuple[Finding, ...]:
        """Sessions, prefixes, BFD, next hops, AllowedIPs, daemons."""
        return await watch.diagnose(spec, ctx)

    def repairs(self, spec: BgpSpec, ctx: ReadContext) -> tuple[Repair, ...]:
        """Reload, then restart, host by host."""
        return watch.repairs(spec, ctx)

    async def repair(self, spec: BgpSpec, step: Repair, ctx: StageContext) -> None:
        """Reload or restart our own daemon on one host."""
        await watch.repair(spec, step, ctx)


async def take_away(ctx: StageContext) -> None:
    """Take everything away that the stage ever made, by what it kept; nothing kept is success."""
    memory = await recall(ctx.kept)
    if memory is None:
        return
    identity, owner = identity_of(ctx.address), str(ctx.address)
    removals = [
        Removal(host, f"{host}: routing daemon {identity}", partial(hosts.remove, host, identity, owner, ctx))
        for host in memory.places
    ]
    await remove_each("the routing daemon", removals, ctx)
    await forget(ctx.kept)


async def suspend(ctx: StageContext) -> None:
    """End the daemons of everything that the stage made, by what it kept; files stay."""
    memory = await recall(ctx.kept) or Memory()
    for host in memory.places:
        ctx.report.line(f"stop: ending the routing daemon on {host}, keeping its configuration")
    identity, owner = identity_of(ctx.address), str(ctx.address)
    await all_of(hosts.lower(host, identity, owner, ctx) for host in memory.places)


def _leaving(memory: Memory, instances: Sequence[Instance]) -> tuple[str, ...]:
    """Hosts that once had a daemon of the stage which the settings no longer want."""
    wanted = {instance.host for instance in instances}
    return tuple(host for host in memory.places if host not in wanted)


def _work(instance: Instance, seen: Survey, memory: Memory) -> _Work:
    """How the instance is brought to its new configuration: BIRD works out by itself what changes, FRR is told the
    difference from what it runs for certain."""
    made = compare.settle(instance, seen)
    if not seen.alive or seen.daemon != made.daemon or not compare.is_ours(instance, seen):
        return _Work(instance, made, seen, None)
    if made.daemon == "bird":
        return _Work(instance, made, seen, "")
    old = memory.texts.get(instance.host, Secret(""))
    certain = digest_of(old.reveal()) == seen.facts.get("loaded") and seen.facts.get("running") == seen.facts["live"]
    return _Work(instance, made, seen, frr.delta(old.reveal(), made.config(instance).reveal()) if certain else None)


async def _switch(item: _Work, ctx: StageContext) -> None:
    with told(tuple(compare.differences(item.instance, item.seen)), ctx):
        await hosts.switch(item.instance, item.made, item.seen, item.change, ctx)


async def _legs(
    spec: BgpSpec, look: Look, ctx: ReadContext
) -> tuple[tuple[Leg, ...], Mapping[str, tuple[str, ...]], tuple[Way, ...]]:
    """All legs, each host's addresses in its site, and the pings without an answer; no pings before the rest holds."""
    both = zip(look.instances, look.seen, strict=True)
    sites = {instance.host: sites_of(instance, seen) for instance, seen in both}
    legs = tuple(legs_of(look.instances, look.seen))
    if not all(leg.ok for leg in legs):
        return legs, sites, ()
    ways = ways_between(spec, look.instances, sites)
    answered = await hosts.ping(ways, ctx)
    return (*legs, *ping_legs(ways, answered)), sites, diagnosis.by_host(answered, ways)


async def _until_ready(
    spec: BgpSpec, instances: tuple[Instance, ...], ctx: StageContext
) -> tuple[Look, tuple[Leg, ...], Mapping[str, tuple[str, ...]]]:
    ctx.report.line("validate: sessions, prefixes both ways, BFD, next hops, pings between the sites")
    patience = Patience.of(spec.ready_within, ctx)
    while True:
        look = Look(instances, await hosts.survey(instances, ctx))
        legs, sites, silent = await _legs(spec, look, ctx)
        if all(leg.ok for leg in legs):
            for leg in legs:
                ctx.report.line(leg.line())
            return look, legs, sites
        if patience.ends:
            causes = diagnosis.findings(look.instances, look.seen, silent)
            raise NotReadyError(
                f"the sessions do not carry traffic: {summary(legs)}",
                detail="\n".join([*(leg.line() for leg in legs), *(f"{item.where}: {item.words}" for item in causes)]),
                hint=next((item.hint for item in causes if item.hint), "give it more time with `ready_within`"),
            )
        await patience.pause()
