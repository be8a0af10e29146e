"""How a routes stage is driven: look at the hosts' routes, set what differs, check the ways there and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.contracts.transport import Command, Completed
from skyspan.model.change import Action, Change, Observation, ResourceChange
from skyspan.model.error import NotReadyError, SpecError, StageError, ToolFailedError
from skyspan.model.value import OutputValue, digest
from skyspan.networks.legs import Leg, summary
from skyspan.networks.looking import all_of
from skyspan.networks.routes import commands, table
from skyspan.networks.routes.memory import Memory, forget, recall, remember
from skyspan.networks.routes.spec import RoutesSpec
from skyspan.networks.routes.table import HostRoutes, Seen, plan_hosts

_PAUSE_S = 0.3


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
        settings = digest(spec.model_dump())
        action, reason = Action.UPDATE, seen.reason
        found: tuple[ResourceChange, ...] = ()
        if not seen.exists:
            action, found = Action.CREATE, tuple(item for wanted in hosts for item in table.creation(wanted))
        elif seen.drifted:
            found = seen.drift
        elif memory.applied == settings:
            # Nothing differs: a way back that is not there is waited for, and named.
            if seen.healthy:
                return Change.none(seen)
        else:
            found = _differences(hosts, await _survey(hosts, ctx))
            reason = "its settings changed" if memory.applied else "an apply did not come to its end"
        leaving = [ResourceChange(f"{host}: routes", Action.DESTROY) for host in _leaving(memory, hosts)]
        listed = (*found, *leaving)
        return Change(
            action,
            reason,
            listed,
            based_on=seen.fingerprint,
            meaning=digest([action.value, [(item.address, item.action.value) for item in listed], settings]),
            outputs=_certain(hosts),
        )

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
        failed: dict[str, StageError] = {}

        async def remove(host: str) -> None:
            try:
                await _remove(host, ctx)
            except StageError as error:
                failed[host] = error

        await all_of(remove(host) for host in memory.places)
        if failed:
            first = next(iter(failed.values()))
            raise type(first)(
                f"the routes are not removed from {', '.join(failed)}: {first.summary}",
                detail=first.detail,
                hint=first.hint or f"destroy again when {', '.join(failed)} can be reached",
                retry=first.retry,
            )
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
    for item in found:
        ctx.report.progress(item.address, item.action.value, "started", item.note)
    try:
        await _run(wanted, commands.set_command(wanted), ctx)
    except StageError:
        for item in found:
            ctx.report.progress(item.address, item.action.value, "failed")
        raise
    for item in found:
        ctx.report.progress(item.address, item.action.value, "done")


async def _remove(host: str, ctx: StageContext) -> None:
    known = _known(host, ctx)
    await _run(known, commands.remove_command(known), ctx)


def _known(host: str, ctx: ReadContext) -> HostRoutes:
    """A host of which nothing is wanted any more."""
    found = ctx.hosts.get(host)
    identity = table.identity_of(ctx.address)
    return HostRoutes(host, str(ctx.address), identity, (), (), found is not None and found.user != "root")


async def _run(wanted: HostRoutes, command: Command, ctx: StageContext) -> None:
    done = await ctx.places.reach(wanted.host).run(command)
    if not done.ok:
        raise _failed(done, wanted, f"changing the routes of {wanted.host}")


def _failed(done: Completed, wanted: HostRoutes, what: str) -> StageError:
    if done.exit_code == commands.TAKEN:
        return SpecError(f"{what} is refused: the name is taken", detail=done.last_words(), hint="rename the stage")
    ended = "took too long" if done.timed_out else f"failed (exit status {done.exit_code})"
    sudo = f"it needs root: log in as root, or let the user run sudo without a password on {wanted.host}"
    return ToolFailedError(f"{what} {ended}", detail=done.last_words(), hint=sudo if wanted.sudo else "")


async def _until_ready(spec: RoutesSpec, hosts: Sequence[HostRoutes], ctx: StageContext) -> list[Seen]:
    until = ctx.clock.monotonic() + spec.ready_within
    until = until if ctx.deadline is None else min(until, ctx.deadline)
    while True:
        seen = await _survey(hosts, ctx)
        legs = tuple(table.legs_of(hosts, seen))
        failed = [leg for leg in legs if not leg.ok]
        if not failed:
            for leg in legs:
                ctx.report.line(leg.line())
            return seen
        if ctx.clock.monotonic() + _PAUSE_S >= until:
            raise NotReadyError(
                f"the routes are of no use yet: {summary(legs)}",
                detail="\n".join(leg.line() for leg in legs),
                hint=failed[0].hint,
            )
        await ctx.clock.sleep(_PAUSE_S)


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
