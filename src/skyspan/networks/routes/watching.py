"""How static routes are probed, diagnosed and repaired: an interface that goes down takes its routes along, and they do
not come back with it."""

from __future__ import annotations

from collections.abc import Sequence

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.contracts.watch import Finding, Passage, Repair
from skyspan.model.error import NotReadyError, StageError
from skyspan.networks.looking import all_of
from skyspan.networks.routes import hosts, table
from skyspan.networks.routes.ready import Way, ways_of
from skyspan.networks.routes.table import HostRoutes

REAPPLY = "reapply"


async def probe(wanted: Sequence[HostRoutes], ctx: ReadContext) -> tuple[Passage, ...]:
    """Whether each host takes the ways that it is to take, by its kernel's word."""
    found = await all_of(_passages(one, ctx) for one in wanted)
    return tuple(passage for passages in found for passage in passages)


async def _passages(wanted: HostRoutes, ctx: ReadContext) -> list[Passage]:
    try:
        ways = list(ways_of(wanted, await hosts.probe(wanted, ctx)))
    except StageError as error:
        goals = [*(route.prefix for route in wanted.routes), *(str(net) for net, _ in wanted.returns)]
        return [Passage(wanted.host, goal, None, error.summary) for goal in dict.fromkeys(goals)]
    return [_passage(wanted.host, goal, ways) for goal in dict.fromkeys(way.to for way in ways)]


def _passage(host: str, goal: str, ways: Sequence[Way]) -> Passage:
    reason = next((way.leg.reason for way in ways if way.to == goal and not way.leg.ok), "")
    return Passage(host, goal, not reason, reason)


async def diagnose(wanted: Sequence[HostRoutes], ctx: ReadContext) -> tuple[Finding, ...]:
    """Every way that is not as it is to be, as far as the hosts can be asked."""
    found = await all_of(_findings(one, ctx) for one in wanted)
    return tuple(finding for findings in found for finding in findings)


async def _findings(wanted: HostRoutes, ctx: ReadContext) -> list[Finding]:
    try:
        ways = ways_of(wanted, await hosts.probe(wanted, ctx))
    except StageError:
        return []  # nobody knows, so nothing is wrong with the routes
    return [
        Finding(way.cause, way.host, f"{way.leg.name}: {way.leg.reason}", way.leg.hint)
        for way in ways
        if not way.leg.ok
    ]


def repairs(wanted: Sequence[HostRoutes]) -> tuple[Repair, ...]:
    """Set the routes of one host after the other again."""
    return tuple(Repair(REAPPLY, one.host) for one in wanted if one.routes)


async def repair(wanted: HostRoutes, ctx: StageContext) -> None:
    """Set the routes of one host again. Raises StageError when that cannot help, or somebody else's are in the way."""
    seen = await hosts.look(wanted, ctx)
    if not any(table.differences(wanted, seen)):
        raise NotReadyError(f"{REAPPLY} on {wanted.host} cannot help: its routes are there")
    table.refuse(wanted, seen)
    await hosts.set_routes(wanted, seen, ctx)
