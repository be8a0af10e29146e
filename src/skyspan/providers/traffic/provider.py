"""How a traffic stage is driven: look at the ends, measure, have flows go on, hold their figures against thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.model.change import Action, Change, Observation, ResourceChange
from skyspan.model.error import NotReadyError, StageError
from skyspan.model.value import OutputValue, digest
from skyspan.providers.remembered import stamp_of
from skyspan.providers.traffic import hosts
from skyspan.providers.traffic.commands import Role, listen_role, send_role
from skyspan.providers.traffic.ends import Route, containers, refuse_unknown_hosts, routed, where
from skyspan.providers.traffic.figures import Figures, breaches
from skyspan.providers.traffic.memory import Memory, forget, recall, remember, remember_with_end
from skyspan.providers.traffic.orders import longest, port_there, sender
from skyspan.providers.traffic.spec import Flow, TrafficSpec
from skyspan.providers.traffic.survey import Look, RoleLook
from skyspan.providers.traffic.watching import Verdict, background, verdict

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 0.5
"""Between two looks at flows that have just begun."""

Looks = Mapping[str | None, Look]


class TrafficProvider:
    """Makes traffic between hosts, containers and lab nodes, and holds its figures against thresholds.

    A measured flow runs once, while the stage is applied; its figures are outputs. A flow in the background goes on by
    itself on the hosts, and `check` looks at its last window.
    """

    kind = "traffic"
    spec = TrafficSpec

    async def observe(self, spec: TrafficSpec, ctx: ReadContext) -> Observation:
        memory = await recall(ctx.kept)
        if memory is None:
            return Observation.absent("it has not been applied yet")
        if not memory.applied:
            return Observation.absent("an apply did not come to its end")
        outputs = _outputs(memory)
        flows = background(spec)
        if memory.applied != _settings(spec) or not flows:
            return Observation(True, fingerprint=memory.stamp, outputs=outputs)
        looks = await hosts.survey(_places(flows), ctx)
        found = [verdict(name, flow, memory.flows[name]["tool"], looks) for name, flow in flows.items()]
        for one in found:
            ctx.report.line(f"background: {one.words()}")
        return _observation(found, memory, outputs)

    async def plan(self, spec: TrafficSpec, seen: Observation, ctx: ReadContext) -> Change:
        refuse_unknown_hosts(spec, ctx.hosts)
        memory = await recall(ctx.kept) or Memory()
        settings = _settings(spec)
        action, reason = Action.UPDATE, seen.reason
        listed = tuple(_resource(name, flow) for name, flow in spec.flows.items())
        if not seen.exists:
            action = Action.CREATE
        elif memory.applied != settings:
            reason = "its settings changed"
        elif seen.drifted:
            listed = seen.drift
        elif seen.healthy:
            return Change.none(seen)
        else:
            listed = ()
        meaning = digest([action.value, [(item.address, item.action.value) for item in listed], settings])
        return Change(action, reason, listed, based_on=seen.fingerprint, meaning=meaning)

    async def apply(self, spec: TrafficSpec, change: Change, ctx: StageContext) -> Observation:
        refuse_unknown_hosts(spec, ctx.hosts)
        for flow in spec.flows.values():
            if flow.community is not None:
                ctx.report.conceal(flow.community)
        settings, inside = _settings(spec), containers(spec)
        before = await recall(ctx.kept) or Memory()
        looks = await hosts.survey(inside, ctx, tools=True)
        routes = [routed(name, flow, looks, ctx.hosts, ctx.address) for name, flow in spec.flows.items()]
        # Before the first host is touched, so that destroy knows where to look; other settings do not count as applied.
        places = tuple(dict.fromkeys((*before.places, *inside)))
        memory = replace(before, places=places) if before.applied == settings else Memory(places)
        if memory != before:
            await remember(ctx.kept, memory)
        await _leave(spec, before, looks, ctx)
        flows = await _measured(spec, routes, memory, ctx)
        going = [(number, route) for number, route in enumerate(routes) if route.flow.background]
        ports = await hosts.all_of(_go_on(route, spec.ports, number, looks, ctx) for number, route in going)
        found = await _until_ready(spec, [route for _, route in going], looks, ctx)
        for (_, route), port, one in zip(going, ports, found, strict=True):
            kept = memory.flows.get(route.name)
            flows[route.name] = kept or _record(route, port, one.figures or Figures())
        # The outputs of flows that go on are those of their first window: a stage's outputs change only with it.
        same = memory.applied and memory.stamp and flows == memory.flows
        done = Memory(tuple(inside), settings, memory.stamp if same else stamp_of(ctx), flows)
        if done != memory:
            remember_with_end(ctx.kept, done)
        return _observation(found, done, _outputs(done))

    async def destroy(self, spec: TrafficSpec, ctx: StageContext) -> None:
        memory = await recall(ctx.kept)
        if memory is None:
            return
        failed: dict[str | None, StageError] = {}

        async def remove(host: str | None) -> None:
            try:
                await hosts.remove(host, ctx)
            except StageError as error:
                failed[host] = error

        await hosts.all_of(remove(host) for host in memory.places)
        if failed:
            raise _left(failed)
        await forget(ctx.kept)

    async def stop(self, spec: TrafficSpec, ctx: StageContext) -> None:
        """End the flows in the background, keeping what is needed to start them again."""
        memory = await recall(ctx.kept) or Memory()
        if background(spec):
            ctx.report.line(f"stop: ending {', '.join(background(spec))}")
            await hosts.all_of(hosts.remove(host, ctx, keep=True) for host in memory.places)

    async def start(self, spec: TrafficSpec, ctx: StageContext) -> Observation:
        """Have the flows in the background go on; what was measured is not measured again."""
        return await self.apply(spec, Change(Action.UPDATE, "started"), ctx)


def _settings(spec: TrafficSpec) -> str:
    return digest(spec.model_dump())


def _places(flows: Mapping[str, Flow]) -> Mapping[str | None, Sequence[str]]:
    """The hosts where something of these flows goes on."""
    ends = [flow.from_.host for flow in flows.values()]
    ends += [flow.to.host for flow in flows.values() if flow.served]
    return dict.fromkeys(ends, ())


async def _leave(spec: TrafficSpec, before: Memory, looks: Looks, ctx: StageContext) -> None:
    """End what the settings no longer want, and what a measurement that was cut off left."""
    gone = [host for host in before.places if host not in looks]
    await hosts.all_of(hosts.remove(host, ctx) for host in gone)
    wanted = {
        (host, role)
        for name, flow in background(spec).items()
        for host, role in ((flow.from_.host, send_role(name)), (flow.to.host, listen_role(name)))
    }
    for host, look in looks.items():
        old = [role for role in look.roles if (host, role) not in wanted]
        if old:
            await hosts.end(where(host, ctx.address), old, ctx)


async def _measured(
    spec: TrafficSpec, routes: Sequence[Route], memory: Memory, ctx: StageContext
) -> dict[str, Mapping[str, Any]]:
    """The flows that run once: those of this very spec that were measured already stay as they are."""

    async def one(number: int, route: Route) -> tuple[int, Figures]:
        port, figures = await hosts.measure(route, hosts.candidates(route, spec.ports, number), ctx)
        ctx.report.line(f"measured: {route.words()}: {figures.words()}")
        return port, figures

    once = [(number, route) for number, route in enumerate(routes) if not route.flow.background]
    known = {route.name: memory.flows[route.name] for _, route in once if route.name in memory.flows}
    work = [(number, route) for number, route in once if route.name not in known]
    if spec.together:
        results = await hosts.all_of(one(number, route) for number, route in work)
    else:
        results = [await one(number, route) for number, route in work]
    wrong = [
        (route, figures, broken)
        for (_, route), (_, figures) in zip(work, results, strict=True)
        if (broken := breaches(figures, route.flow.thresholds))
    ]
    if wrong:
        raise NotReadyError(
            _summary([f"{route.name}: {'; '.join(broken)}" for route, _, broken in wrong], len(routes)),
            detail="\n".join(
                f"{'FAIL' if breaches(figures, route.flow.thresholds) else 'ok  '} {route.words()}: {figures.words()}"
                for (_, route), (_, figures) in zip(work, results, strict=True)
            ),
            hint=_hint(wrong[0][0], wrong[0][1]),
        )
    fresh = {
        route.name: _record(route, port, figures) for (_, route), (port, figures) in zip(work, results, strict=True)
    }
    return {**known, **fresh}


async def _go_on(route: Route, ports: str, number: int, looks: Looks, ctx: StageContext) -> int:
    """Have both ends of a flow in the background running as they should; the port."""
    flow, port = route.flow, port_there(route.flow)
    last = _verdict(route, looks).figures
    # A tool that could not work may be stuck at either end: both begin anew.
    stuck = last is not None and bool(last.failed)
    if flow.served:
        tried = hosts.candidates(route, ports, number)
        role = hosts.listening(route, tried)
        role = replace(role, digest=_digest(role))
        seen = looks[route.target.host].roles.get(role.name, RoleLook())
        if seen.alive and seen.digest == role.digest and not stuck:
            port = seen.port
        else:
            port = await hosts.start_listener(route, role, ctx)
            ctx.report.line(f"apply: {route.words()}: {route.tool.value} listens on port {port}")
    program = sender(flow, route.tool, route.address, port)
    sends = Role(send_role(route.name), "send", "", program, route.source_inside, pause=flow.pause or 0.0)
    sends = replace(sends, limit=longest(flow))
    sends = replace(sends, digest=_digest(sends))
    seen = looks[route.source.host].roles.get(sends.name, RoleLook())
    if not (seen.alive and seen.digest == sends.digest) or stuck:
        await hosts.start_sender(route, sends, ctx)
        ctx.report.line(f"apply: {route.words()}: goes on")
    return port


def _digest(role: Role) -> str:
    what = [role.program.argv, role.program.text, role.inside.docker, role.inside.container, role.pause, role.ports]
    return digest(what)[:32]


async def _until_ready(spec: TrafficSpec, routes: Sequence[Route], before: Looks, ctx: StageContext) -> list[Verdict]:
    """Wait for a window of each flow that holds its thresholds: of one that did so before, any; else one that began
    with the apply or after."""
    if not routes:
        return []
    ctx.report.line("validate: a window of each flow in the background")
    flows = {route.name: route.flow for route in routes}
    longest = max(flow.duration + (flow.pause or 0.0) for flow in flows.values())
    until = ctx.clock.monotonic() + spec.ready_within + longest
    until = until if ctx.deadline is None else min(until, ctx.deadline)
    # A role that had to be started anew has lost the windows of before.
    since = {route.name: 0 if _verdict(route, before).ok else before[route.source.host].now for route in routes}
    pause = _FIRST_PAUSE_S
    while True:
        looks = await hosts.survey(_places(flows), ctx)
        found = [_verdict(route, looks, since[route.name]) for route in routes]
        failed = [one for one in found if not one.ok]
        if not failed:
            for one in found:
                ctx.report.line(f"background: {one.words()}")
            return found
        if ctx.clock.monotonic() + pause >= until:
            route = next(route for route in routes if route.name == failed[0].name)
            raise NotReadyError(
                _summary([one.words() for one in failed], len(spec.flows)),
                detail="\n".join(f"{'ok  ' if one.ok else 'FAIL'} {one.words()}" for one in found),
                hint=_hint(route, failed[0].figures or Figures(failed="nothing yet")),
            )
        await ctx.clock.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_S)


def _verdict(route: Route, looks: Looks, since: int = 0) -> Verdict:
    return verdict(route.name, route.flow, route.tool.value, looks, since)


def _observation(found: Sequence[Verdict], memory: Memory, outputs: Mapping[str, OutputValue]) -> Observation:
    drift = tuple(item for one in found for item in one.gone)
    failed = [one for one in found if not one.ok]
    marks = [*(item.address for item in drift), *(one.name for one in failed)]
    reason = _summary([one.words() for one in failed], len(found)) if failed else ""
    return Observation(
        True,
        healthy=not failed,
        drifted=bool(drift),
        fingerprint=" ".join([memory.stamp, *marks]),
        reason=reason,
        outputs=outputs,
        drift=drift,
    )


def _summary(failed: Sequence[str], number: int) -> str:
    return f"flow {failed[0]}" if number == 1 else f"{len(failed)} of {number} flows fail: {failed[0]}"


def _hint(route: Route, figures: Figures) -> str:
    port = route.flow.port or "its port"
    if figures.failed or not (figures.received or figures.throughput):
        what = {"ping": "ICMP", "snmp": "udp/161", "udp": f"udp/{port}"}.get(route.flow.kind, f"tcp/{port}")
        return f"does {what} pass from {route.flow.from_.words()} to {route.address}: link, routes, `allow`, firewalls?"
    return "the path is worse than the bounds allow: look at the link, or change `thresholds`"


def _record(route: Route, port: int, figures: Figures) -> dict[str, Any]:
    """A flow's output."""
    named = {"port": port} if port else {}
    return {
        "kind": route.flow.kind,
        "mode": route.flow.mode,
        "tool": route.tool.value,
        "from": route.flow.from_.words(),
        "to": route.flow.to.words(),
        "address": route.address,
        **named,
        **figures.record(),
    }


def _outputs(memory: Memory) -> dict[str, OutputValue]:
    return {"flows": OutputValue({name: dict(flow) for name, flow in memory.flows.items()})}


def _resource(name: str, flow: Flow) -> ResourceChange:
    verb = "goes on" if flow.background else f"measured for {flow.duration:g} s"
    return ResourceChange(f"{name}: {flow.kind} {flow.from_.words()} → {flow.to.words()}", Action.CREATE, verb)


def _left(failed: Mapping[str | None, StageError]) -> StageError:
    """The error of a destroy that could not reach every host."""
    first = next(iter(failed.values()))
    listed = ", ".join(host or "this machine" for host in failed)
    return type(first)(
        f"the traffic could not be ended on {listed}: {first.summary}",
        detail="\n".join(part for error in failed.values() for part in (error.summary, error.detail) if part),
        hint=first.hint or f"destroy again when {listed} can be reached",
        retry=first.retry,
    )
