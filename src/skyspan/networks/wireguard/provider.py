"""How a wireguard stage is driven: look at the gateways, work out what differs, change that, prove it by traffic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.contracts.transport import Stream
from skyspan.contracts.watch import Finding, Passage, Repair
from skyspan.model.change import Action, Change, Observation, ResourceChange
from skyspan.model.diagnostic import Diagnostic
from skyspan.model.error import NotReadyError
from skyspan.networks import docker
from skyspan.networks.legs import Leg, summary
from skyspan.networks.lifecycle import Removal, Wish, change_to, remove_each, told
from skyspan.networks.looking import all_of
from skyspan.networks.patience import Patience
from skyspan.networks.preflight import findings
from skyspan.networks.wireguard import compare, hosts
from skyspan.networks.wireguard.keys import Keys, Memory, Place, forget, keys_of, recall, remember, with_keys
from skyspan.networks.wireguard.link import EndState, plan_ends, settings_digest
from skyspan.networks.wireguard.numbering import numbered
from skyspan.networks.wireguard.observation import Look, certain_outputs, observation
from skyspan.networks.wireguard.parse import Survey
from skyspan.networks.wireguard.ready import clock_differences, expected, legs_of
from skyspan.networks.wireguard.spec import WireguardSpec
from skyspan.networks.wireguard.watch import Scene, diagnosis, local, repairs_of

CLOCKS_APART_S = 120.0
"""More than that between the gateways is refused: handshake stamps must rise, and a clock that is behind and then set
right or a gateway that reboots with its old one is not listened to (WireGuard paper, section 5.4.2)."""


class WireguardProvider:
    """Joins the networks behind gateways by WireGuard tunnels that admit only what is allowed: two, a hub with its
    spokes, or each with each.

    Every end is made by its own host from what it gets by standard input: private keys go nowhere else. A change is
    given to the live interface, so sessions survive it.
    """

    kind = "wireguard"
    spec = WireguardSpec

    async def observe(self, spec: WireguardSpec, ctx: ReadContext) -> Observation:
        memory = await recall(ctx.kept)
        keys = keys_of(spec, memory) if memory is not None else None
        if memory is None or keys is None:
            return Observation.absent("it has not been made yet")
        ends = plan_ends(spec, ctx.address, ctx.hosts, memory.numbers)
        look = Look(ends, keys, await hosts.survey(ends, ctx, probe=True))
        if not look.present():
            return Observation.absent("no gateway has the link's interface")
        legs = (*legs_of(ends, keys, look.seen), *await expected(spec.expect, ends, ctx.places))
        for leg in legs:
            if not leg.ok:
                ctx.report.line(leg.line())
        return observation(look, legs, as_applied=memory.applied == settings_digest(spec, ends))

    async def plan(self, spec: WireguardSpec, seen: Observation, ctx: ReadContext) -> Change:
        memory = await recall(ctx.kept) or Memory()
        ends = plan_ends(spec, ctx.address, ctx.hosts, memory.numbers)

        async def differences() -> Sequence[ResourceChange]:
            keys = keys_of(spec, memory)
            return Look(ends, keys, await hosts.survey(ends, ctx, probe=False)).differences() if keys else ()

        leaving = (f"{place.host}: interface {place.interface}" for place in _leaving(memory, ends))
        wish = Wish(
            settings=settings_digest(spec, ends),
            applied=memory.applied,
            creation=tuple(item for end in ends for item in compare.creation(end)),
            leaving=tuple(ResourceChange(address, Action.DESTROY) for address in leaving),
            outputs=certain_outputs(ends),
        )
        return await change_to(wish, seen, differences)

    async def apply(self, spec: WireguardSpec, change: Change, ctx: StageContext) -> Observation:
        before = await recall(ctx.kept) or Memory()
        ends = plan_ends(spec, ctx.address, ctx.hosts, before.numbers)
        settings = settings_digest(spec, ends)
        leaving = _leaving(before, ends)
        seen = await hosts.survey(ends, ctx, probe=False)
        _refuse_what_cannot_work(ends, seen, leaving, ctx)
        ctx.report.line(f"generate: {ends[0].interface} between {' and '.join(end.host for end in ends)}")
        memory = replace(with_keys(before, spec), numbers=numbered(spec, before.numbers))
        keys = _made_keys(spec, memory)
        for secret in (*keys.private.values(), *keys.shared.values()):
            ctx.report.conceal(secret)
        wanted = tuple(Place(end.host, end.interface) for end in ends)
        # Before the first host is touched, so that destroy knows where to look; other settings do not count as applied.
        applied = before.applied if before.applied == settings else ""
        memory = replace(memory, places=tuple(dict.fromkeys((*before.places, *wanted))), applied=applied)
        if memory != before:
            await remember(ctx.kept, memory)
        if leaving:
            await all_of(hosts.remove(place, str(ctx.address), ctx) for place in leaving)
            seen = await hosts.survey(ends, ctx, probe=False)
        look = Look(ends, keys, seen)
        await all_of(_change_end(end, look, ctx) for end in ends)
        ctx.report.line("validate: handshake, pings both ways, full-size packets, expected services")
        look, legs = await _until_ready(spec, look, ctx)
        done = replace(memory, places=wanted, applied=settings)
        if done != memory:
            await remember(ctx.kept, done)
        return observation(look, legs, as_applied=True)

    async def destroy(self, spec: WireguardSpec, ctx: StageContext) -> None:
        memory = await recall(ctx.kept)
        if memory is None:
            return
        removals = [
            Removal(
                place.host,
                f"{place.host}: interface {place.interface}",
                partial(hosts.remove, place, str(ctx.address), ctx),
            )
            for place in memory.places
        ]
        await remove_each("the link", removals, ctx)
        await forget(ctx.kept)

    async def stop(self, spec: WireguardSpec, ctx: StageContext) -> None:
        """Take the interfaces down; keys, files and firewall stay."""
        memory = await recall(ctx.kept) or Memory()
        for place in memory.places:
            ctx.report.line(f"stop: taking down {place.interface} on {place.host}, keeping its keys and files")
        await all_of(hosts.lower(place, str(ctx.address), ctx) for place in memory.places)

    async def start(self, spec: WireguardSpec, ctx: StageContext) -> Observation:
        """Bring the link back with the keys it had, and prove it."""
        return await self.apply(spec, Change(Action.UPDATE, "started"), ctx)

    async def probe(self, spec: WireguardSpec, ctx: ReadContext) -> tuple[Passage, ...]:
        """A ping from every end to every peer of it."""
        memory = await recall(ctx.kept) or Memory()
        ends = plan_ends(spec, ctx.address, ctx.hosts, memory.numbers)
        found = await all_of(hosts.probe(end, ctx) for end in ends)
        return tuple(passage for passages in found for passage in passages)

    async def diagnose(self, spec: WireguardSpec, ctx: ReadContext) -> tuple[Finding, ...]:
        """What the ends say of themselves and of each other."""
        memory = await recall(ctx.kept)
        keys = keys_of(spec, memory) if memory is not None else None
        if memory is None or keys is None:
            return ()
        ends = plan_ends(spec, ctx.address, ctx.hosts, memory.numbers)
        certain = local(tuple(diagnosis(Scene(ends, keys, await hosts.survey(ends, ctx, probe=False)))))
        return certain or tuple(diagnosis(Scene(ends, keys, await hosts.survey(ends, ctx, probe=True))))

    def repairs(self, spec: WireguardSpec, ctx: ReadContext) -> tuple[Repair, ...]:
        """Look names up anew, give the configuration again, make the interface anew."""
        return repairs_of(plan_ends(spec, ctx.address, ctx.hosts, {}))

    async def repair(self, spec: WireguardSpec, step: Repair, ctx: StageContext) -> None:
        """Take one step on one end."""
        memory = await recall(ctx.kept) or Memory()
        keys = keys_of(spec, memory)
        ends = plan_ends(spec, ctx.address, ctx.hosts, memory.numbers)
        end = next((end for end in ends if end.host == step.host), None)
        if keys is None or end is None:
            raise NotReadyError(f"the link was never made on {step.host}", hint="skyspan up")
        await hosts.repair(ends, end, keys, step.name, ctx)

    async def preflight(self, settings: Mapping[str, Any], ctx: ReadContext) -> tuple[Diagnostic, ...]:
        """Says which prefixes cannot be joined. Nothing is needed on this machine; what the gateways lack is said when
        they are looked at, before they are touched."""
        return tuple(findings(settings))

    def describe_link(self, spec: WireguardSpec) -> Mapping[str, Any]:
        """The ends with their prefixes, the hub if there is one, and what may pass."""
        ends = [{"host": end.host, "prefixes": list(end.prefixes)} for end in spec.between]
        return {"ends": ends, "allow": list(spec.allow)} | ({"hub": spec.hub} if spec.hub else {})


def _leaving(memory: Memory, ends: Sequence[EndState]) -> tuple[Place, ...]:
    """Where the stage once made an interface that the settings no longer want."""
    wanted = {Place(end.host, end.interface) for end in ends}
    return tuple(place for place in memory.places if place not in wanted)


def _made_keys(spec: WireguardSpec, memory: Memory) -> Keys:
    keys = keys_of(spec, memory)
    assert keys is not None, "with_keys makes every key that is missing"
    return keys


def _refuse_what_cannot_work(
    ends: Sequence[EndState], seen: Sequence[Survey], leaving: Sequence[Place], ctx: ReadContext
) -> None:
    """Raise StageError for whatever stands in the way on a host; nothing was touched yet."""
    for end, survey in zip(ends, seen, strict=True):
        compare.refuse_missing_tools(end, survey)
        compare.refuse_missing_powers(end, survey)
    for end, survey in zip(ends, seen, strict=True):
        here = frozenset(place.interface for place in leaving if place.host == end.host)
        compare.refuse_collisions(end, survey, here)
    for end, survey in zip(ends, seen, strict=True):
        for words in docker.dropping(end.families, survey.filters):
            ctx.report.line(f"{end.host}: {words}", Stream.ERR)
    clocks = clock_differences(ends, seen, ctx.clock.now())
    apart = max(clocks.values()) - min(clocks.values())
    if apart > CLOCKS_APART_S:
        ahead, behind = max(clocks, key=clocks.__getitem__), min(clocks, key=clocks.__getitem__)
        raise NotReadyError(
            f"the clock of {behind} is {apart:.0f} s behind that of {ahead}",
            hint="set the clocks (timedatectl set-ntp true): handshakes with a stamp of the past are refused",
        )
    for host, difference in clocks.items():
        if abs(difference) > CLOCKS_APART_S:
            ctx.report.line(f"the clock of {host} differs from the one here by {difference:+.0f} s", Stream.ERR)


async def _change_end(end: EndState, look: Look, ctx: StageContext) -> None:
    seen = look.seen[look.ends.index(end)]
    found = tuple(compare.differences(end, look.keys, seen))
    if not found:
        ctx.report.line(f"apply: {end.host} is as it is to be")
        return
    with told(found, ctx):
        await hosts.change(end, look.keys, seen, ctx)


async def _until_ready(spec: WireguardSpec, look: Look, ctx: StageContext) -> tuple[Look, tuple[Leg, ...]]:
    patience = Patience.of(spec.ready_within, ctx)
    while True:
        look = replace(look, seen=await hosts.survey(look.ends, ctx, probe=True))
        legs = tuple(legs_of(look.ends, look.keys, look.seen))
        if all(leg.ok for leg in legs):
            legs += await expected(spec.expect, look.ends, ctx.places)
        failed = [leg for leg in legs if not leg.ok]
        if not failed:
            for leg in legs:
                ctx.report.line(leg.line())
            return look, legs
        if patience.ends:
            raise NotReadyError(
                f"the link carries no traffic: {summary(legs)}",
                detail="\n".join(leg.line() for leg in legs),
                hint=next((leg.hint for leg in failed if leg.hint), "give it more time with `ready_within`"),
            )
        await patience.pause()
