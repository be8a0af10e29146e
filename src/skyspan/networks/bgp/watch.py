"""How running sessions are probed, diagnosed and repaired."""

from __future__ import annotations

from collections.abc import Sequence

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.contracts.watch import Cause, Finding, Passage, Repair
from skyspan.model.error import HostKeyError, StageError, UnreachableError
from skyspan.networks.bgp import diagnosis, hosts
from skyspan.networks.bgp.compare import settle
from skyspan.networks.bgp.memory import Memory, recall
from skyspan.networks.bgp.parse import Survey
from skyspan.networks.bgp.ready import Way, sites_of, ways_between
from skyspan.networks.bgp.speaking import Instance, plan_instances
from skyspan.networks.bgp.spec import BgpSpec
from skyspan.networks.looking import all_of

RELOAD = "reload"
RESTART = "restart"

SESSION_S = 8.0
"""How long speakers may take to find each other again: they try every 2 s, tell their prefixes after that, and BFD
begins slowly."""


async def probe(spec: BgpSpec, ctx: ReadContext) -> tuple[Passage, ...]:
    """A ping between the sites, once in each direction."""
    memory = await recall(ctx.kept) or Memory()
    ways = ways_between(spec, plan_instances(spec, ctx.address, ctx.hosts), memory.sites)
    starts = tuple(dict.fromkeys(way.from_host for way in ways))
    found = await all_of(_passages(host, [way for way in ways if way.from_host == host], ctx) for host in starts)
    return tuple(passage for passages in found for passage in passages)


async def _passages(host: str, ways: Sequence[Way], ctx: ReadContext) -> list[Passage]:
    goals = tuple(dict.fromkeys(way.to_host for way in ways))
    try:
        answered = await hosts.ping_from(host, ways, ctx)
    except StageError as error:
        return [Passage(host, goal, None, error.summary) for goal in goals]
    passages = []
    for goal in goals:
        silent = [way for way in ways if way.to_host == goal and not answered.get((way.source, way.target), False)]
        reason = f"no answer from {silent[0].target}" if silent else ""
        passages.append(Passage(host, goal, not silent, reason))
    return passages


async def diagnose(spec: BgpSpec, ctx: ReadContext) -> tuple[Finding, ...]:
    """Why traffic does not pass, from a look at every speaker that can be reached."""
    instances = plan_instances(spec, ctx.address, ctx.hosts)
    looked = await all_of(_look(instance, ctx) for instance in instances)
    reached = [(instance, seen) for instance, seen in looked if isinstance(seen, Survey)]
    sites = {instance.host: sites_of(instance, seen) for instance, seen in reached}
    there = tuple(instance for instance, _ in reached)
    # What goes to a speaker that does not run, or comes from there, is not waited for: it says nothing more.
    ended = [instance.host for instance, seen in reached if not seen.alive]
    ways = [way for way in ways_between(spec, there, sites) if not {way.from_host, way.to_host} & {*ended}]
    silent = diagnosis.by_host(await hosts.ping(ways, ctx), ways)
    gone = tuple(
        Finding(Cause.UNREACHABLE, instance.host, seen.summary, seen.hint)
        for instance, seen in looked
        if isinstance(seen, StageError)
    )
    return (*gone, *diagnosis.findings(there, [seen for _, seen in reached], silent))


async def _look(instance: Instance, ctx: ReadContext) -> tuple[Instance, Survey | StageError]:
    try:
        return instance, await hosts.look(instance, ctx)
    except (UnreachableError, HostKeyError) as error:
        return instance, error


def repairs(spec: BgpSpec, ctx: ReadContext) -> tuple[Repair, ...]:
    """Give each daemon its configuration again, which keeps what is up; then start one after the other anew."""
    managed = [speaker.host for speaker in spec.speakers if speaker.managed]
    return tuple(Repair(name, host, SESSION_S) for name in (RELOAD, RESTART) for host in managed)


async def repair(spec: BgpSpec, step: Repair, ctx: StageContext) -> None:
    """Take one step on one host; a daemon that does not run is started by either."""
    instance = next(item for item in plan_instances(spec, ctx.address, ctx.hosts) if item.host == step.host)
    seen = await hosts.look(instance, ctx)
    made = settle(instance, seen)
    await hosts.prepare(instance, made, ctx)
    # FRR takes its whole configuration again as it takes changes: what stands already is left alone.
    again = made.config(instance).reveal() if made.daemon == "frr" else ""
    await hosts.switch(instance, made, seen, again if step.name == RELOAD else None, ctx)
