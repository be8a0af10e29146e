"""How an aws-vpn stage is driven: look at the host, work out what differs, change that, prove it by traffic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.contracts.watch import Finding, Passage, Repair
from skyspan.model.change import Action, Change, Observation, ResourceChange
from skyspan.model.diagnostic import Diagnostic
from skyspan.model.error import NotReadyError
from skyspan.networks import preflight
from skyspan.networks.awsvpn import observation, watching
from skyspan.networks.awsvpn.looking import look, planned, view_of
from skyspan.networks.awsvpn.observation import View, certain_outputs, views
from skyspan.networks.awsvpn.ready import beyond, tunnels_ready
from skyspan.networks.awsvpn.spec import CLOUD, AwsVpnSpec
from skyspan.networks.awsvpn.tunnels import SHARED, names_of, plan_tunnels, sessions_of, settings_digest
from skyspan.networks.bgp.memory import recall as recall_bgp
from skyspan.networks.bgp.provider import BgpProvider, suspend, take_away
from skyspan.networks.ipsec import compare, hosts
from skyspan.networks.ipsec.keys import Memory, forget, recall, remember
from skyspan.networks.ipsec.parse import Survey
from skyspan.networks.legs import summary
from skyspan.networks.lifecycle import Removal, Wish, change_to, remove_each, told
from skyspan.networks.looking import all_of

RENUMBER = "give the aws_vpn_connection another `tunnel1_inside_cidr` and `tunnel2_inside_cidr`"


class AwsVpnProvider:
    """Configures a host as the customer gateway of an AWS Site-to-Site VPN: both tunnels, and BGP through them.

    The host calls the cloud, never the other way round. Keys come with the facts and go to the host by standard input.
    """

    kind = "aws-vpn"
    spec = AwsVpnSpec

    async def observe(self, spec: AwsVpnSpec, ctx: ReadContext) -> Observation:
        memory = await recall(ctx.kept)
        if memory is None:
            return Observation.absent("it has not been made yet")
        view = await look(spec, ctx, probe=True)
        if not view.present():
            return Observation.absent(f"{spec.host} has none of the tunnels")
        legs = (*view.legs(), *await beyond(spec, view.ends, ctx))
        for leg in legs:
            if not leg.ok:
                ctx.report.line(leg.line())
        applied = memory.applied == settings_digest(spec, view.ends)
        return observation.observation(view, legs, ctx.clock.now(), as_applied=applied)

    async def plan(self, spec: AwsVpnSpec, seen: Observation, ctx: ReadContext) -> Change:
        ends = plan_tunnels(spec, ctx.address, ctx.hosts)
        memory = await recall(ctx.kept) or Memory()
        made = [item for end in ends for item in compare.creation(end)]
        if spec.bgp is not None:
            made.append(ResourceChange(f"{spec.host}: routing daemon", Action.CREATE))

        async def differences() -> Sequence[ResourceChange]:
            return (await look(spec, ctx, probe=False)).differences()

        leaving = (f"{host}: both tunnels" for host in _leaving(memory, spec))
        wish = Wish(
            settings=settings_digest(spec, ends),
            applied=memory.applied,
            creation=made,
            leaving=tuple(ResourceChange(address, Action.DESTROY) for address in leaving),
            outputs=certain_outputs(ends),
        )
        return await change_to(wish, seen, differences)

    async def apply(self, spec: AwsVpnSpec, change: Change, ctx: StageContext) -> Observation:
        for tunnel in spec.facts.tunnels:
            ctx.report.conceal(tunnel.key)
        ends, seen = await planned(spec, ctx, probe=False)
        spoke = await recall_bgp(ctx.kept) is not None
        for end, survey in zip(ends, seen, strict=True):
            compare.refuse_collisions(end, _unlearned(survey) if spoke else survey, RENUMBER)
        hosts.tell_drops(ends[:1], seen[:1], ctx)
        before = await recall(ctx.kept) or Memory()
        settings = settings_digest(spec, ends)
        # Before the host is touched, so that destroy knows where to look; other settings do not count as applied.
        applied = before.applied if before.applied == settings else ""
        memory = replace(before, places=tuple(dict.fromkeys((*before.places, spec.host))), applied=applied)
        if memory != before:
            await remember(ctx.kept, memory)
        bgp = sessions_of(spec, ends)
        if bgp is None:
            await take_away(ctx)
        await all_of(_remove(host, ctx) for host in _leaving(before, spec))
        await _converge(View(views(spec, ends, seen)), ctx)
        ctx.report.line(f"validate: both tunnels, by {ends[0].plane}: one session each, pings, full-size packets")
        looks = await tunnels_ready(spec, views(spec, ends, seen), ctx)
        if bgp is not None:
            speaks = BgpProvider()
            wanted = await speaks.plan(bgp, await speaks.observe(bgp, ctx), ctx)
            if wanted.action.changes:
                await speaks.apply(bgp, wanted, ctx)
        view = await view_of(spec, looks, ctx)
        legs = (*view.legs(), *await beyond(spec, view.ends, ctx))
        failing = summary(legs)
        if failing:
            raise NotReadyError(
                f"both tunnels are up, but {failing}",
                detail="\n".join(leg.line() for leg in legs),
                hint=next((leg.hint for leg in legs if leg.hint), ""),
            )
        if ends[0].plane != "route":
            ctx.report.line(f"{ends[0].plane}: {SHARED}")
        done = replace(memory, places=(spec.host,), applied=settings)
        if done != memory:
            await remember(ctx.kept, done)
        return observation.observation(view, legs, ctx.clock.now(), as_applied=True)

    async def destroy(self, spec: AwsVpnSpec, ctx: StageContext) -> None:
        memory = await recall(ctx.kept)
        await take_away(ctx)
        if memory is None:
            return
        removals = [Removal(host, f"{host}: both tunnels", partial(_remove, host, ctx)) for host in memory.places]
        await remove_each("the link", removals, ctx)
        await forget(ctx.kept)

    async def stop(self, spec: AwsVpnSpec, ctx: StageContext) -> None:
        """End the sessions and unload the connections; firewall and addresses stay."""
        memory = await recall(ctx.kept) or Memory()
        await suspend(ctx)
        for host in memory.places:
            ctx.report.line(f"stop: ending both tunnels on {host}, keeping the firewall")
            for name in names_of(ctx.address):
                await hosts.lower(host, name, ctx)

    async def start(self, spec: AwsVpnSpec, ctx: StageContext) -> Observation:
        """Bring the tunnels back, and prove them."""
        return await self.apply(spec, Change(Action.UPDATE, "started"), ctx)

    async def preflight(self, settings: Mapping[str, Any], ctx: ReadContext) -> tuple[Diagnostic, ...]:
        """Says which prefixes cannot be joined. What the host lacks is said when it is looked at."""
        ends = [
            {"host": settings.get("host", "the host"), "prefixes": settings.get("prefixes")},
            {"host": CLOUD, "prefixes": settings.get("remote")},
        ]
        return tuple(preflight.findings({"between": ends}))

    def describe_link(self, spec: AwsVpnSpec) -> Mapping[str, Any]:
        """Both sides with their prefixes, and what may pass."""
        clouds = ", ".join(tunnel.outside for tunnel in spec.facts.tunnels)
        ends = [
            {"host": spec.host, "prefixes": list(spec.prefixes)},
            {"host": clouds, "prefixes": list(spec.remote)},
        ]
        return {"ends": ends, "allow": list(spec.allow)}

    async def probe(self, spec: AwsVpnSpec, ctx: ReadContext) -> tuple[Passage, ...]:
        """A ping through each tunnel, whether BGP is spoken, and a ping to the named address in the cloud."""
        return await watching.probe(spec, ctx)

    async def diagnose(self, spec: AwsVpnSpec, ctx: ReadContext) -> tuple[Finding, ...]:
        """Why a tunnel carries no traffic, or BGP does not speak, from what the host and its daemons say."""
        return await watching.diagnose(spec, ctx)

    def repairs(self, spec: AwsVpnSpec, ctx: ReadContext) -> tuple[Repair, ...]:
        """Leave a silent tunnel for the other and call again; write and load anew; restart."""
        return watching.repairs(spec)

    async def repair(self, spec: AwsVpnSpec, step: Repair, ctx: StageContext) -> None:
        """Take one step; none of them disturbs a tunnel that carries traffic."""
        await watching.repair(spec, step, ctx)


def _leaving(memory: Memory, spec: AwsVpnSpec) -> tuple[str, ...]:
    """Hosts that once were the customer gateway and no longer are."""
    return tuple(host for host in memory.places if host != spec.host)


def _unlearned(seen: Survey) -> Survey:
    """Without what our own BGP learned, which is in nobody's way: it goes with it."""
    return replace(seen, routes=tuple(route for route in seen.routes if route.protocol not in ("bird", "bgp")))


async def _remove(host: str, ctx: StageContext) -> None:
    for name in names_of(ctx.address):
        await hosts.remove(host, name, ctx)


async def _converge(view: View, ctx: StageContext) -> None:
    """Change what differs, one tunnel after the other, as they share a daemon."""
    items: Sequence[ResourceChange] = view.differences()
    if not items:
        ctx.report.line("apply: both tunnels are as they are to be")
        return
    with told(items, ctx):
        for one in view.looks:
            await hosts.converge(one.ends[0], one, ctx)
