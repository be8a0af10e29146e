"""How an ipsec stage is driven: look at both gateways, work out what differs, change that, prove it by traffic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.contracts.watch import Cause, Finding, Passage, Repair
from skyspan.model.change import Action, Change, Observation, ResourceChange
from skyspan.model.diagnostic import Diagnostic
from skyspan.model.error import NotReadyError, StageError
from skyspan.networks import preflight
from skyspan.networks.ipsec import compare, hosts
from skyspan.networks.ipsec.diagnose import findings, own_trouble
from skyspan.networks.ipsec.keys import Keys, Memory, forget, keys_of, recall, remember, with_keys
from skyspan.networks.ipsec.link import EndState, initiator, name_of, plan_ends, settings_digest
from skyspan.networks.ipsec.observation import Look, certain_outputs, observation
from skyspan.networks.ipsec.ready import expected, legs_of
from skyspan.networks.ipsec.spec import IpsecSpec
from skyspan.networks.ipsec.waiting import until_ready
from skyspan.networks.lifecycle import Removal, Wish, change_to, remove_each, told
from skyspan.networks.looking import all_of

RE_INITIATE, REAPPLY, RESTART = "re-initiate", "reapply", "restart"
"""The steps of repair."""


class IpsecProvider:
    """Joins the networks behind two gateways by IPsec (strongSwan, IKEv2) and admits only what is allowed.

    One of both gateways calls, always the same, so that there is exactly one session. Keys go to their own gateway
    only, by standard input.
    """

    kind = "ipsec"
    spec = IpsecSpec

    async def observe(self, spec: IpsecSpec, ctx: ReadContext) -> Observation:
        memory = await recall(ctx.kept)
        if memory is None:
            return Observation.absent("it has not been made yet")
        look = await _look(spec, memory, ctx, probe=True)
        if not compare.present(look.ends, look.seen):
            return Observation.absent("neither gateway has the link's connection")
        legs = (*legs_of(look.ends, look.keys, look.seen), *await expected(spec.expect, look.ends, ctx.places))
        for leg in legs:
            if not leg.ok:
                ctx.report.line(leg.line())
        applied = memory.applied == settings_digest(spec, look.ends)
        return observation(look, legs, ctx.clock.now(), as_applied=applied)

    async def plan(self, spec: IpsecSpec, seen: Observation, ctx: ReadContext) -> Change:
        ends = plan_ends(spec, ctx.address, ctx.hosts, {})
        memory = await recall(ctx.kept) or Memory()

        async def differences() -> Sequence[ResourceChange]:
            return (await _look(spec, memory, ctx, probe=False)).differences()

        leaving = (f"{host}: the link's end" for host in _leaving(memory, ends))
        wish = Wish(
            settings=settings_digest(spec, ends),
            applied=memory.applied,
            creation=tuple(item for end in ends for item in compare.creation(end)),
            leaving=tuple(ResourceChange(address, Action.DESTROY) for address in leaving),
            outputs=certain_outputs(ends),
        )
        return await change_to(wish, seen, differences)

    async def apply(self, spec: IpsecSpec, change: Change, ctx: StageContext) -> Observation:
        ends, seen = await hosts.planned(spec, ctx, probe=False)
        for end, survey in zip(ends, seen, strict=True):
            compare.refuse_collisions(end, survey)
        hosts.tell_drops(ends, seen, ctx)
        settings = settings_digest(spec, ends)
        before = await recall(ctx.kept) or Memory()
        one, other = wanted = tuple(end.host for end in ends)
        ctx.report.line(f"generate: {ends[0].name} between {one} and {other}, {initiator(spec).host} calls")
        memory = with_keys(before, spec, ends, ctx.clock.now())
        keys = keys_of(spec, memory, ends)
        assert keys is not None, "with_keys makes every key that is missing"
        for secret in keys.secrets():
            ctx.report.conceal(secret)
        # Before the first host is touched, so that destroy knows where to look; other settings do not count as applied.
        applied = before.applied if before.applied == settings else ""
        memory = replace(memory, places=tuple(dict.fromkeys((*before.places, *wanted))), applied=applied)
        if memory != before:
            await remember(ctx.kept, memory)
        await all_of(hosts.remove(host, name_of(ctx.address), ctx) for host in _leaving(before, ends))
        look = Look(spec, ends, keys, seen)
        await _converge(look, ctx)
        ctx.report.line("validate: one session, pings both ways, full-size packets, expected services")
        look, legs = await until_ready(look, ctx)
        done = replace(memory, places=wanted, applied=settings)
        if done != memory:
            await remember(ctx.kept, done)
        return observation(look, legs, ctx.clock.now(), as_applied=True)

    async def destroy(self, spec: IpsecSpec, ctx: StageContext) -> None:
        memory = await recall(ctx.kept)
        if memory is None:
            return
        removals = [
            Removal(host, f"{host}: the link's end", partial(hosts.remove, host, name_of(ctx.address), ctx))
            for host in memory.places
        ]
        await remove_each("the link", removals, ctx)
        await forget(ctx.kept)

    async def stop(self, spec: IpsecSpec, ctx: StageContext) -> None:
        """End the session and unload the connection; keys, firewall and addresses stay."""
        memory = await recall(ctx.kept) or Memory()
        for host in memory.places:
            ctx.report.line(f"stop: ending the session on {host}, keeping keys and firewall")
        await all_of(hosts.lower(host, name_of(ctx.address), ctx) for host in memory.places)

    async def start(self, spec: IpsecSpec, ctx: StageContext) -> Observation:
        """Bring the link back with the keys it had, and prove it."""
        return await self.apply(spec, Change(Action.UPDATE, "started"), ctx)

    async def preflight(self, settings: Mapping[str, Any], ctx: ReadContext) -> tuple[Diagnostic, ...]:
        """Says which prefixes cannot be joined. Nothing is needed on this machine; what the gateways lack is said when
        they are looked at, before they are touched."""
        return tuple(preflight.findings(settings))

    def describe_link(self, spec: IpsecSpec) -> Mapping[str, Any]:
        """The ends with their prefixes, and what may pass."""
        ends = [{"host": end.host, "prefixes": list(end.prefixes)} for end in spec.between]
        return {"ends": ends, "allow": list(spec.allow)}

    async def probe(self, spec: IpsecSpec, ctx: ReadContext) -> tuple[Passage, ...]:
        """One ping inside the tunnel in each direction, and whether the gateways forward what comes through it."""
        ends = plan_ends(spec, ctx.address, ctx.hosts, {})
        return tuple(await all_of(_passage(end, ctx) for end in ends))

    async def diagnose(self, spec: IpsecSpec, ctx: ReadContext) -> tuple[Finding, ...]:
        """Why it does not carry traffic, from what both gateways and their daemons say."""
        memory = await recall(ctx.kept)
        if memory is None:
            return ()
        try:
            # What the gateways know of themselves needs no pings that cannot be answered.
            look = await _look(spec, memory, ctx, probe=False)
            if certain := own_trouble(look):
                return certain
            look = await _look(spec, memory, ctx, probe=True)
        except StageError as error:
            return (Finding(Cause.UNKNOWN, "", f"a gateway cannot be looked at: {error.summary}", error.hint),)
        return findings(look)

    def repairs(self, spec: IpsecSpec, ctx: ReadContext) -> tuple[Repair, ...]:
        """Call again; then write and load anew, then restart, the side that waits first: it is not the one that would
        notice by itself."""
        calls = initiator(spec).host
        waits = next(end.host for end in spec.between if end.host != calls)
        steps = ((RE_INITIATE, calls), (REAPPLY, waits), (REAPPLY, calls), (RESTART, waits), (RESTART, calls))
        return tuple(Repair(name, host) for name, host in steps)

    async def repair(self, spec: IpsecSpec, step: Repair, ctx: StageContext) -> None:
        """Take one step on one gateway. After a change of the side that waits, the other is told to call again if
        nothing comes through or the daemon is another, as it would hold the old session until it notices."""
        memory = await recall(ctx.kept)
        if memory is None or not memory.applied:
            raise NotReadyError("the link has not been made yet", hint="`skyspan up` makes it")
        look = await _look(spec, memory, ctx, probe=False)
        end = next(end for end in look.ends if end.host == step.host)
        calls = next(end for end in look.ends if end.initiates)
        ctx.report.line(f"repair: {step.name} on {step.host}")
        _refuse_in_vain(look, step)
        if step.name == RE_INITIATE:
            await hosts.initiate(calls, ctx)
            return
        if step.name == RESTART:
            await hosts.restart(end, ctx)
        await hosts.converge(end, look, ctx)
        anew = step.name == RESTART or not look.seen[look.ends.index(end)].answers
        if (anew and end != calls) or not (await _passage(calls, ctx)).passed:
            await hosts.initiate(calls, ctx)


async def _look(spec: IpsecSpec, memory: Memory, ctx: ReadContext, *, probe: bool) -> Look:
    """Both ends with the keys that were made for them, none while some are not made."""
    ends, seen = await hosts.planned(spec, ctx, probe=probe)
    return Look(spec, ends, keys_of(spec, memory, ends) or Keys(), seen)


async def _passage(end: EndState, ctx: ReadContext) -> Passage:
    try:
        probed = await hosts.probe(end, ctx)
    except StageError as error:
        return Passage(end.host, end.other, None, f"{end.host}: {error.summary}")
    trouble = probed.trouble("no answer to a ping inside the tunnel")
    return Passage(end.host, end.other, not trouble, trouble)


def _refuse_in_vain(look: Look, step: Repair) -> None:
    """A step that cannot help takes seconds that a better one can use."""
    down = [end.host for end, seen in zip(look.ends, look.seen, strict=True) if not seen.answers]
    if down and (step.name == RE_INITIATE or step.host not in down):
        raise NotReadyError(f"{step.name} on {step.host} cannot help: charon of {down[0]} does not run")
    held = [end.host for end, seen in zip(look.ends, look.seen, strict=True) if seen.held(end.families)]
    if held and step.name == RE_INITIATE and all(seen.installed for seen in look.seen):
        raise NotReadyError(f"{step.name} on {step.host} cannot help: the session stands, {held[0]} does not forward")


def _leaving(memory: Memory, ends: Sequence[EndState]) -> tuple[str, ...]:
    """Hosts that once were an end and no longer are."""
    wanted = {end.host for end in ends}
    return tuple(host for host in memory.places if host not in wanted)


async def _converge(look: Look, ctx: StageContext) -> None:
    """Change what differs, the side that waits first, so that it knows the other before that calls."""
    found = {end.host: look.differences_of(end) for end in look.ends}
    if not any(found.values()):
        ctx.report.line("apply: both gateways are as they are to be")
        return
    with told([item for part in found.values() for item in part], ctx):
        for end in sorted(look.ends, key=lambda end: end.initiates):
            await hosts.converge(end, look, ctx)
