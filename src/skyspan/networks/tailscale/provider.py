"""How a tailscale stage is driven: look at every host, install and join where needed, prove it by names and pings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.contracts.network import NetworkProvider
from skyspan.contracts.watch import Finding, Passage, Repair
from skyspan.model.change import Action, Change, Observation, ResourceChange
from skyspan.model.diagnostic import Diagnostic, Position, Severity
from skyspan.model.error import Retry, StageError
from skyspan.model.value import digest
from skyspan.networks.legs import summary
from skyspan.networks.lifecycle import Removal, remove_each, told
from skyspan.networks.looking import all_of
from skyspan.networks.patience import Patience
from skyspan.networks.tailscale import compare, hosts, watching
from skyspan.networks.tailscale.compare import Member, members_of
from skyspan.networks.tailscale.memory import Memory, forget, recall, remember
from skyspan.networks.tailscale.network import Tailnet, auth_key
from skyspan.networks.tailscale.observation import Look, certain_outputs, observation, settings_digest
from skyspan.networks.tailscale.parse import Survey
from skyspan.networks.tailscale.ready import MemberLeg, legs_of, pairs, ping_leg
from skyspan.networks.tailscale.spec import TailscaleSpec

_HOPELESS_S = 4.0
"""What the tailnet says of a member arrives within a moment of its joining: what is wrong then stays so."""


class TailscaleProvider:
    """Makes hosts members of a tailnet, of Tailscale or Headscale, each with its tags and a name that never changes.

    A host that is what it is to be is left alone, and no key is sent to it. What somebody else has joined is used as it
    is; destroying logs out only what this stage has joined.
    """

    kind = "tailscale"
    spec = TailscaleSpec

    async def observe(self, spec: TailscaleSpec, ctx: ReadContext) -> Observation:
        memory = await recall(ctx.kept)
        if memory is None:
            return Observation.absent("it has not been made yet")
        members = members_of(spec, ctx.hosts, str(ctx.address))
        look = await _look(members, ctx)
        if not look.present():
            return Observation.absent("no host is a member")
        legs = await _legs(spec, look, ctx)
        for leg in legs:
            if not leg.ok:
                ctx.report.line(leg.line())
        applied = memory.applied == settings_digest(spec, members)
        return observation(look, legs, _drift(spec, look) if applied else ())

    async def plan(self, spec: TailscaleSpec, seen: Observation, ctx: ReadContext) -> Change:
        members = members_of(spec, ctx.hosts, str(ctx.address))
        memory = await recall(ctx.kept) or Memory()
        settings = settings_digest(spec, members)
        same = memory.applied == settings
        if seen.exists and seen.healthy and not seen.drifted and same:
            return Change.none(seen)
        found = list((await _look(members, ctx)).differences(spec))
        leaving = _leaving(memory, members)
        found += [ResourceChange(_membership(host), Action.DESTROY, "it left `hosts`") for host in leaving]
        action = Action.UPDATE if seen.exists else Action.CREATE
        changed = "its settings changed" if memory.applied else "an apply did not come to its end"
        reason = seen.reason if same or not seen.exists else changed
        return Change(
            action,
            reason or "it is to be looked at again",
            tuple(found),
            based_on=seen.fingerprint,
            meaning=digest([action.value, [(item.address, item.action.value) for item in found], settings]),
            outputs=certain_outputs(members),
        )

    async def apply(self, spec: TailscaleSpec, change: Change, ctx: StageContext) -> Observation:
        members = members_of(spec, ctx.hosts, str(ctx.address))
        settings = settings_digest(spec, members)
        before = await recall(ctx.kept) or Memory()
        leaving = _leaving(before, members)
        tailnet = Tailnet(spec, ctx)
        look = await _look(members, ctx)
        _refuse_what_cannot_work(spec, look, leaving, ctx)
        # Before the first host is touched, so that destroy knows where to look; other settings do not count as applied.
        applied = before.applied if before.applied == settings else ""
        touched = tuple(dict.fromkeys((*before.hosts, *(member.host for member in members))))
        memory = Memory(touched, applied)
        if memory != before:
            await remember(ctx.kept, memory)
        await remove_each("the membership", [_removal(host, ctx) for host in leaving], ctx)
        joining = zip(members, look.seen, strict=True)
        await all_of(_ensure(tailnet, member, seen, ctx) for member, seen in joining)
        ctx.report.line("validate: tailnet, tags, names, routes, pings")
        look, legs = await _until_ready(spec, members, ctx)
        done = Memory(tuple(member.host for member in members), settings)
        if done != memory:
            await remember(ctx.kept, done)
        return observation(look, legs, ())

    async def destroy(self, spec: TailscaleSpec, ctx: StageContext) -> None:
        memory = await recall(ctx.kept)
        if memory is None:
            return
        await _refuse_to_cut_ourselves_off(members_of(spec, ctx.hosts, str(ctx.address)), "leaving the tailnet on", ctx)
        await remove_each("the membership", [_removal(host, ctx) for host in memory.hosts], ctx)
        await forget(ctx.kept)

    async def stop(self, spec: TailscaleSpec, ctx: StageContext) -> None:
        """Take Tailscale down where this stage has joined; the memberships stay."""
        members = members_of(spec, ctx.hosts, str(ctx.address))
        await _refuse_to_cut_ourselves_off(members, "stopping Tailscale on", ctx)
        known = (await recall(ctx.kept) or Memory()).hosts
        await all_of(hosts.lower(member.host, ctx) for member in members if member.host in known)

    async def start(self, spec: TailscaleSpec, ctx: StageContext) -> Observation:
        """Bring the memberships back, without a key, and prove them."""
        return await self.apply(spec, Change(Action.UPDATE, "started"), ctx)

    async def preflight(self, settings: Mapping[str, Any], ctx: ReadContext) -> tuple[Diagnostic, ...]:
        """Warns when hosts have yet to join and the environment variable with their auth key is not set."""
        memory = await recall(ctx.kept) or Memory()
        named = settings.get("hosts")
        names = [host for host in named if isinstance(host, str)] if isinstance(named, list | tuple) else []
        variable = settings.get("auth_key_env", TailscaleSpec.model_fields["auth_key_env"].default)
        if set(names) <= set(memory.hosts) or not isinstance(variable, str) or ctx.variables.get(variable) is not None:
            return ()
        summary = f"the environment variable {variable} is not set, so no host can join the tailnet"
        hint = f"set {variable} to an auth key; hosts that are members already need none"
        return (Diagnostic("auth-key-missing", summary, Position(""), severity=Severity.WARNING, hint=hint),)

    def describe_link(self, spec: TailscaleSpec) -> Mapping[str, Any]:
        """The members with the networks they lead to; what may pass is for the tailnet's own policy to say."""
        ends = [{"host": host, "prefixes": list(spec.advertise_routes.get(host, ()))} for host in spec.hosts]
        return {"ends": ends, "allow": ["any"]}

    def network(self, spec: TailscaleSpec, ctx: StageContext) -> NetworkProvider:
        """The tailnet itself, host by host."""
        return Tailnet(spec, ctx)

    async def probe(self, spec: TailscaleSpec, ctx: ReadContext) -> tuple[Passage, ...]:
        """One packet through the tunnel from every member to the next, and back."""
        return await watching.probe(members_of(spec, ctx.hosts, str(ctx.address)), ctx)

    async def diagnose(self, spec: TailscaleSpec, ctx: ReadContext) -> tuple[Finding, ...]:
        """Daemon down, logged out, key expired, wrong tags or name, routes not approved, server out of reach."""
        return await watching.diagnose(spec, members_of(spec, ctx.hosts, str(ctx.address)), ctx)

    def repairs(self, spec: TailscaleSpec, ctx: ReadContext) -> tuple[Repair, ...]:
        """Start what is stopped, then restart the daemon; host by host."""
        return watching.repairs(spec)

    async def repair(self, spec: TailscaleSpec, step: Repair, ctx: StageContext) -> None:
        """One of them; never joins anew, so no key is sent."""
        await watching.repair(spec, step, ctx)


async def _look(members: Sequence[Member], ctx: ReadContext) -> Look:
    peers = any(member.routes for member in members)
    return Look(members, await all_of(hosts.survey(member.host, ctx, peers=peers) for member in members))


def _drift(spec: TailscaleSpec, look: Look) -> tuple[ResourceChange, ...]:
    """What differs; a membership that is not ours to change is told by the legs instead."""
    try:
        return tuple(look.differences(spec))
    except StageError:
        return ()


def _membership(host: str) -> str:
    """The membership of a host that leaves, as it is told."""
    return f"{host}: membership"


def _removal(host: str, ctx: StageContext) -> Removal:
    return Removal(host, _membership(host), partial(hosts.remove, host, ctx))


def _leaving(memory: Memory, members: Sequence[Member]) -> tuple[str, ...]:
    """The hosts that the stage once touched and the settings no longer name."""
    wanted = {member.host for member in members}
    return tuple(host for host in memory.hosts if host not in wanted)


def _refuse_what_cannot_work(spec: TailscaleSpec, look: Look, leaving: Sequence[str], ctx: StageContext) -> None:
    """Raise StageError for whatever stands in the way, on any host; nothing was touched yet."""
    steps = []
    for member, seen in zip(look.members, look.seen, strict=True):
        compare.refuse_missing_tools(member, seen)
        compare.refuse_install(spec, member.host, seen)
        steps.append(compare.move(member, seen, retag=spec.retag))
    if any(step is not None and step.needs_key for step in steps):
        auth_key(spec, ctx)


async def _refuse_to_cut_ourselves_off(members: Sequence[Member], what: str, ctx: ReadContext) -> None:
    """Raise SpecError where this stage has joined a host that is reached over the tailnet itself."""
    for member in members:
        if member.inside and compare.is_ours(member, await hosts.survey(member.host, ctx)):
            compare.refuse_from_inside(member, what)


async def _ensure(tailnet: Tailnet, member: Member, seen: Survey, ctx: StageContext) -> None:
    found = list(compare.resources(tailnet.spec, member, seen))
    if not found:
        ctx.report.line(f"apply: {member.host} is as it is to be")
    with told(found, ctx):
        if (await tailnet.install(member.host, seen)).changed:
            seen = await hosts.survey(member.host, ctx)
        await tailnet.join(member, seen)


async def _legs(spec: TailscaleSpec, look: Look, ctx: ReadContext) -> tuple[MemberLeg, ...]:
    legs = [
        leg for member, seen in zip(look.members, look.seen, strict=True) for leg in legs_of(member, seen, look.seen)
    ]
    if spec.ping and all(leg.ok for leg in legs):
        nodes = {member.host: seen.node for member, seen in zip(look.members, look.seen, strict=True)}

        async def leg(one: Member, other: Member) -> MemberLeg:
            node = nodes[other.host]
            target = node.addresses[0] if node is not None and node.addresses else other.host
            return ping_leg(one, other, await hosts.ping(one.host, target, ctx))

        legs += await all_of(leg(one, other) for one, other in pairs(look.members))
    return tuple(legs)


async def _until_ready(
    spec: TailscaleSpec, members: Sequence[Member], ctx: StageContext
) -> tuple[Look, tuple[MemberLeg, ...]]:
    begun = ctx.clock.monotonic()
    patience = Patience.of(spec.ready_within, ctx)
    while True:
        look = await _look(members, ctx)
        legs = await _legs(spec, look, ctx)
        failed = [leg for leg in legs if not leg.ok]
        if not failed:
            for leg in legs:
                ctx.report.line(leg.line())
            return look, legs
        waited = ctx.clock.monotonic() - begun
        if patience.ends or (failed[0].kind.default_retry is Retry.NEVER and waited >= _HOPELESS_S):
            raise failed[0].kind(
                f"the tailnet is not as wanted: {summary(legs)}",
                detail="\n".join(leg.line() for leg in legs),
                hint=failed[0].hint,
            )
        await patience.pause()
