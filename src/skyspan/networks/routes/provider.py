"""How a routes stage is driven: look at the hosts' routes, set what differs, check the ways there and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.contracts.transport import Command, Completed
from skyspan.model.change import Action, Change, Observation, ResourceChange
from skyspan.model.error import NotReadyError, SpecError, StageError, ToolFailedError
from skyspan.model.value import OutputValue, digest
from skyspan.networks.failing import by_sudo, failure, words_of
from skyspan.networks.legs import Leg, summary
from skyspan.networks.lifecycle import Removal, Wish, change_to, remove_each, told
from skyspan.networks.looking import all_of
from skyspan.networks.patience import Patience
from skyspan.networks.routes import commands, table
from skyspan.networks.routes.memory import Memory, forget, recall, remember
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
        hosts = plan_hosts(spec, ctx.address, ctx.hosts)
        seen = await _survey(hosts, ctx)
        if not any(found.ours for found in seen):
            return Observation.absent("none of its routes is there")
        return _observation(hosts, seen, as_applied=memory.applied == digest(spec.model_dump()))

    async def plan(self, spec: RoutesSpec, seen: Observation, ctx: ReadContext) -> Change:
        hosts = plan_hosts(spec, ctx.address, ctx.hosts)
        memory = await recall(ctx.kept) or Memory()

        async def differences() -> Sequence[ResourceChange]:
            return _differences(hosts, await _survey(hosts, ctx))

        wish = Wish(
            settings=digest(spec.model_dump()),
            applied=memory.applied,
            creation=tuple(item for wanted in hosts for item in table.creation(wanted)),
            leaving=tuple(ResourceChange(_told(host), Action.DESTROY) for host in _leaving(memory, hosts)),
            outputs=_certain(hosts),
        )
        return await change_to(wish, seen, differences)

    async def apply(self, spec: RoutesSpec, change: Change, ctx: StageContext) -> Observation:
        hosts = plan_hosts(spec, ctx.address, ctx.hosts)
        settings = digest(spec.model_dump())
        before = await recall(ctx.kept) or Memory()
        seen = await _survey(hosts, ctx)
        for wanted, found in zip(hosts, seen, strict=True):
            table.refuse(wanted, found)
        touched = tuple(wanted.host for wanted in hosts if wanted.routes)
        # Before the first host is touched, so that destroy knows where to look; other settings do not count as applied.
        applied = before.applied if before.applied == settings else ""
        memory = replace(before, places=tuple(dict.fromkeys((*before.places, *touched))), applied=applied)
        if memory != before:
            await remember(ctx.kept, memory)
        await all_of(_remove(host, ctx) for host in _leaving(before, hosts))
        both = zip(hosts, seen, strict=True)
        await all_of(_set(wanted, found, ctx) for wanted, found in both if wanted.routes)
        seen = await _until_ready(spec, hosts, ctx)
        done = Memory(touched, settings)
        if done != memory:
            await remember(ctx.kept, done)
        return _observation(hosts, seen, as_applied=True)

    async def destroy(self, spec: RoutesSpec, ctx: StageContext) -> None:
        memory = await recall(ctx.kept)
        if memory is None:
            return
        removals = [Removal(host, _told(host), partial(_remove, host, ctx)) for host in memory.places]
        await remove_each("the set of routes", removals, ctx)
        await forget(ctx.kept)

    async def stop(self, spec: RoutesSpec, ctx: StageContext) -> None:
        """Take the routes away; `start` sets them again."""
        memory = await recall(ctx.kept) or Memory()
        await all_of(_run(_known(host, ctx), commands.lower_command(_known(host, ctx)), ctx) for host in memory.places)

    def describe_link(self, spec: RoutesSpec) -> Mapping[str, Any]:
        """The hosts with the networks that they get a way to."""
        return {"ends": [{"host": route.host, "prefixes": list(route.to)} for route in spec.routes], "allow": []}


def _leaving(memory: Memory, hosts: Sequence[HostRoutes]) -> tuple[str, ...]:
    """Hosts that once had routes of the stage which the settings no longer want."""
    wanted = {found.host for found in hosts if found.routes}
    return tuple(host for host in memory.places if host not in wanted)


def _differences(hosts: Sequence[HostRoutes], seen: Sequence[Seen]) -> tuple[ResourceChange, ...]:
    return tuple(item for wanted, found in zip(hosts, seen, strict=True) for item in table.differences(wanted, found))


async def _survey(hosts: Sequence[HostRoutes], ctx: ReadContext) -> list[Seen]:
    return await all_of(_look(wanted, ctx) for wanted in hosts)


async def _look(wanted: HostRoutes, ctx: ReadContext) -> Seen:
    done = await ctx.places.reach(wanted.host).query(commands.survey_command(wanted))
    if not done.ok:
        raise _failed(done, wanted, f"looking at the routes of {wanted.host}")
    try:
        return table.parse_seen(done.text())
    except (ValueError, KeyError) as error:
        raise ToolFailedError(
            f"what {wanted.host} says about its routes cannot be read",
            detail=f"{type(error).__name__}: {error}",
            hint=f"is iproute2 on {wanted.host} of this decade?",
        ) from error


async def _set(wanted: HostRoutes, seen: Seen, ctx: StageContext) -> None:
    found = tuple(table.differences(wanted, seen))
    if not found:
        ctx.report.line(f"apply: {wanted.host} is as it is to be")
        return
    with told(found, ctx):
        await _run(wanted, commands.set_command(wanted), ctx)


def _told(host: str) -> str:
    """What goes from a host, as it is told."""
    return f"{host}: routes"


async def _remove(host: str, ctx: StageContext) -> None:
    known = _known(host, ctx)
    await _run(known, commands.remove_command(known), ctx)


def _known(host: str, ctx: ReadContext) -> HostRoutes:
    """A host of which nothing is wanted any more."""
    identity = table.identity_of(ctx.address)
    return HostRoutes(host, str(ctx.address), identity, (), (), sudo=by_sudo(host, ctx))


async def _run(wanted: HostRoutes, command: Command, ctx: StageContext) -> None:
    done = await ctx.places.reach(wanted.host).run(command)
    if not done.ok:
        raise _failed(done, wanted, f"changing the routes of {wanted.host}")


def _failed(done: Completed, wanted: HostRoutes, what: str) -> StageError:
    if done.exit_code == commands.TAKEN:
        return SpecError(f"{what} is refused: the name is taken", detail=words_of(done), hint="rename the stage")
    return failure(done, what, words_of(done), wanted.host, sudo=wanted.sudo)


async def _until_ready(spec: RoutesSpec, hosts: Sequence[HostRoutes], ctx: StageContext) -> list[Seen]:
    patience = Patience.of(spec.ready_within, ctx)
    while True:
        seen = await _survey(hosts, ctx)
        legs = tuple(table.legs_of(hosts, seen))
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


def _certain(hosts: Sequence[HostRoutes]) -> dict[str, OutputValue]:
    listed = {
        wanted.host: [
            {"to": route.prefix, "metric": route.metric}
            | ({"via": route.via} if route.via else {})
            | ({"interface": route.device} if route.device else {})
            for route in wanted.routes
        ]
        for wanted in hosts
        if wanted.routes
    }
    return {"routes": OutputValue(listed), "protocol": OutputValue(table.PROTOCOL)}


def _observation(hosts: Sequence[HostRoutes], seen: Sequence[Seen], *, as_applied: bool) -> Observation:
    legs: tuple[Leg, ...] = tuple(table.legs_of(hosts, seen))
    found = _differences(hosts, seen) if as_applied else ()
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    drift = f"{found[0].address} differs{more}" if found else ""
    values: dict[str, Any] = {"ready": all(leg.ok for leg in legs), "report": [leg.record() for leg in legs]}
    there = [
        [wanted.host, sorted(route.line() for route in item.ours)] for wanted, item in zip(hosts, seen, strict=True)
    ]
    return Observation(
        exists=True,
        healthy=not summary(legs),
        drifted=bool(found),
        fingerprint=digest([there, [leg.name for leg in legs if not leg.ok]]),
        reason="; ".join(part for part in (summary(legs), drift) if part),
        outputs=_certain(hosts) | {name: OutputValue(value) for name, value in values.items()},
        drift=found,
    )
