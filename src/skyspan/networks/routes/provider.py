"""How a routes stage is driven: look at the hosts' routes, set what differs, check the ways there and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.contracts.watch import Finding, Passage, Repair
from skyspan.model.change import Action, Change, Observation, ResourceChange
from skyspan.model.error import NotReadyError
from skyspan.model.value import OutputValue, digest
from skyspan.networks.legs import Leg, summary
from skyspan.networks.lifecycle import Removal, Wish, change_to, remove_each
from skyspan.networks.looking import all_of
from skyspan.networks.patience import Patience
from skyspan.networks.routes import hosts, table, watching
from skyspan.networks.routes.memory import Memory, forget, recall, remember
from skyspan.networks.routes.ready import legs_of
from skyspan.networks.routes.spec import RoutesSpec
from skyspan.networks.routes.table import HostRoutes, Seen, plan_hosts


class RoutesProvider:
    """Sets static routes on hosts, marked by a protocol number of their own, and checks the ways back.

    Only routes that carry the mark and stand in the host's record of this stage are ever changed or removed.
    """

    kind = "routes"
    spec = RoutesSpec

    async def observe(self, spec: RoutesSpec, ctx: ReadContext) -> Observation:
        memory = await recall(ctx.kept)
        if memory is None:
            return Observation.absent("it has not been made yet")
        planned = plan_hosts(spec, ctx.address, ctx.hosts)
        seen = await hosts.survey(planned, ctx)
        if not any(found.ours for found in seen):
            return Observation.absent("none of its routes is there")
        return _observation(planned, seen, as_applied=memory.applied == digest(spec.model_dump()))

    async def plan(self, spec: RoutesSpec, seen: Observation, ctx: ReadContext) -> Change:
        planned = plan_hosts(spec, ctx.address, ctx.hosts)
        memory = await recall(ctx.kept) or Memory()

        async def differences() -> Sequence[ResourceChange]:
            return _differences(planned, await hosts.survey(planned, ctx))

        wish = Wish(
            settings=digest(spec.model_dump()),
            applied=memory.applied,
            creation=tuple(item for wanted in planned for item in table.creation(wanted)),
            leaving=tuple(ResourceChange(_told(host), Action.DESTROY) for host in _leaving(memory, planned)),
            outputs=_certain(planned),
        )
        return await change_to(wish, seen, differences)

    async def apply(self, spec: RoutesSpec, change: Change, ctx: StageContext) -> Observation:
        planned = plan_hosts(spec, ctx.address, ctx.hosts)
        settings = digest(spec.model_dump())
        before = await recall(ctx.kept) or Memory()
        seen = await hosts.survey(planned, ctx)
        for wanted, found in zip(planned, seen, strict=True):
            table.refuse(wanted, found)
        touched = tuple(wanted.host for wanted in planned if wanted.routes)
        # Before the first host is touched, so that destroy knows where to look; other settings do not count as applied.
        applied = before.applied if before.applied == settings else ""
        memory = replace(before, places=tuple(dict.fromkeys((*before.places, *touched))), applied=applied)
        if memory != before:
            await remember(ctx.kept, memory)
        await all_of(hosts.remove(host, ctx) for host in _leaving(before, planned))
        both = zip(planned, seen, strict=True)
        await all_of(hosts.set_routes(wanted, found, ctx) for wanted, found in both if wanted.routes)
        seen = await _until_ready(spec, planned, ctx)
        done = Memory(touched, settings)
        if done != memory:
            await remember(ctx.kept, done)
        return _observation(planned, seen, as_applied=True)

    async def destroy(self, spec: RoutesSpec, ctx: StageContext) -> None:
        memory = await recall(ctx.kept)
        if memory is None:
            return
        removals = [Removal(host, _told(host), partial(hosts.remove, host, ctx)) for host in memory.places]
        await remove_each("the set of routes", removals, ctx)
        await forget(ctx.kept)

    async def stop(self, spec: RoutesSpec, ctx: StageContext) -> None:
        """Take the routes away; `start` sets them again."""
        memory = await recall(ctx.kept) or Memory()
        await all_of(hosts.lower(host, ctx) for host in memory.places)

    async def probe(self, spec: RoutesSpec, ctx: ReadContext) -> tuple[Passage, ...]:
        """Whether the hosts take the ways that they are to take."""
        return await watching.probe(plan_hosts(spec, ctx.address, ctx.hosts), ctx)

    async def diagnose(self, spec: RoutesSpec, ctx: ReadContext) -> tuple[Finding, ...]:
        """Which ways are not as they are to be."""
        if await recall(ctx.kept) is None:
            return ()
        return await watching.diagnose(plan_hosts(spec, ctx.address, ctx.hosts), ctx)

    def repairs(self, spec: RoutesSpec, ctx: ReadContext) -> tuple[Repair, ...]:
        """Set the routes again, host by host."""
        return watching.repairs(plan_hosts(spec, ctx.address, ctx.hosts))

    async def repair(self, spec: RoutesSpec, step: Repair, ctx: StageContext) -> None:
        """Set the routes of one host again."""
        memory = await recall(ctx.kept)
        if memory is None or not memory.applied:
            raise NotReadyError("the routes have not been set yet", hint="`skyspan up` sets them")
        wanted = next(one for one in plan_hosts(spec, ctx.address, ctx.hosts) if one.host == step.host)
        ctx.report.line(f"repair: {step.name} on {step.host}")
        await watching.repair(wanted, ctx)

    def describe_link(self, spec: RoutesSpec) -> Mapping[str, Any]:
        """The hosts with the networks that they get a way to."""
        return {"ends": [{"host": route.host, "prefixes": list(route.to)} for route in spec.routes], "allow": []}


def _leaving(memory: Memory, planned: Sequence[HostRoutes]) -> tuple[str, ...]:
    """Hosts that once had routes of the stage which the settings no longer want."""
    wanted = {found.host for found in planned if found.routes}
    return tuple(host for host in memory.places if host not in wanted)


def _differences(planned: Sequence[HostRoutes], seen: Sequence[Seen]) -> tuple[ResourceChange, ...]:
    return tuple(item for wanted, found in zip(planned, seen, strict=True) for item in table.differences(wanted, found))


def _told(host: str) -> str:
    """What goes from a host, as it is told."""
    return f"{host}: routes"


async def _until_ready(spec: RoutesSpec, planned: Sequence[HostRoutes], ctx: StageContext) -> list[Seen]:
    patience = Patience.of(spec.ready_within, ctx)
    while True:
        seen = await hosts.survey(planned, ctx)
        legs = legs_of(planned, [found.taken for found in seen])
        failed = [leg for leg in legs if not leg.ok]
        if not failed:
            for leg in legs:
                ctx.report.line(leg.line())
            return seen
        if patience.ends:
            raise NotReadyError(
                f"the routes are of no use yet: {summary(legs)}",
                detail="\n".join(leg.line() for leg in legs),
                hint=failed[0].hint,
            )
        await patience.pause()


def _certain(planned: Sequence[HostRoutes]) -> dict[str, OutputValue]:
    listed = {
        wanted.host: [
            {"to": route.prefix, "metric": route.metric}
            | ({"via": route.via} if route.via else {})
            | ({"interface": route.device} if route.device else {})
            for route in wanted.routes
        ]
        for wanted in planned
        if wanted.routes
    }
    return {"routes": OutputValue(listed), "protocol": OutputValue(table.PROTOCOL)}


def _observation(planned: Sequence[HostRoutes], seen: Sequence[Seen], *, as_applied: bool) -> Observation:
    legs: tuple[Leg, ...] = legs_of(planned, [found.taken for found in seen])
    found = _differences(planned, seen) if as_applied else ()
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    drift = f"{found[0].address} differs{more}" if found else ""
    values: dict[str, Any] = {"ready": all(leg.ok for leg in legs), "report": [leg.record() for leg in legs]}
    there = [
        [wanted.host, sorted(route.line() for route in item.ours)] for wanted, item in zip(planned, seen, strict=True)
    ]
    return Observation(
        exists=True,
        healthy=not summary(legs),
        drifted=bool(found),
        fingerprint=digest([there, [leg.name for leg in legs if not leg.ok]]),
        reason="; ".join(part for part in (summary(legs), drift) if part),
        outputs=_certain(planned) | {name: OutputValue(value) for name, value in values.items()},
        drift=found,
    )
