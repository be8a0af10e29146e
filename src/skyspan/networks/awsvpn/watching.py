"""How both tunnels are probed, diagnosed and repaired while they are up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.contracts.transport import Command, Effect
from skyspan.contracts.watch import Cause, Finding, Passage, Repair
from skyspan.model.error import NotReadyError, StageError
from skyspan.networks.awsvpn.looking import look, planned
from skyspan.networks.awsvpn.observation import View, views
from skyspan.networks.awsvpn.ready import FACTS, OPEN, PING_TIMEOUT_S, ping
from skyspan.networks.awsvpn.spec import AwsVpnSpec
from skyspan.networks.awsvpn.tunnels import plan_tunnels, sessions_of
from skyspan.networks.bgp.provider import BgpProvider
from skyspan.networks.bgp.spec import BGP_PORT
from skyspan.networks.bgp.watch import RELOAD
from skyspan.networks.ipsec import hosts
from skyspan.networks.ipsec.diagnose import findings
from skyspan.networks.ipsec.keys import recall
from skyspan.networks.ipsec.link import EndState
from skyspan.networks.looking import all_of

RE_INITIATE, REAPPLY, RESTART = "re-initiate", "reapply", "restart"
"""The steps of repair. The first ends the session of a silent tunnel, so that traffic takes the other if that carries,
and calls anew, which goes on until the cloud answers."""


_SILENT = (Cause.UNREACHABLE, Cause.HANDSHAKE_MISSING)
"""A cloud that does not answer, seen with a session that stands still and without."""

_HINTS: Mapping[Cause, str] = MappingProxyType(
    {
        Cause.AUTHENTICATION: FACTS,
        Cause.HANDSHAKE_MISSING: OPEN,
        Cause.UNREACHABLE: OPEN,
        Cause.PREFIX_LEAKED: "add it to `remote`, or let the VPN gateway announce less",
        Cause.PREFIX_MISSING: "does the VPN gateway have it, from its VPC or a route? Else correct `remote`",
    }
)
"""What to do about a cloud, which nobody here configures."""


_SESSIONS = Command(
    ("ss", "-Htn", "state", "established", "dport", f"= :{BGP_PORT}", "or", "sport", f"= :{BGP_PORT}"),
    timeout_s=PING_TIMEOUT_S,
    effect=Effect.READ,
)
"""All connections by which BGP is spoken; a line of each ends with the address and port of the other end (ss(8))."""


async def probe(spec: AwsVpnSpec, ctx: ReadContext) -> tuple[Passage, ...]:
    """A ping through each tunnel, whether BGP is spoken through any, and if there is one a ping to the named address in
    the cloud, all at once."""
    ends = plan_tunnels(spec, ctx.address, ctx.hosts)
    work = [_passage(end, ctx) for end in ends]
    work += [_speaking(ends, ctx)] if spec.bgp is not None else []
    work += [_beyond(spec, ctx)] if spec.ping else []
    return tuple(await all_of(work))


async def _passage(end: EndState, ctx: ReadContext) -> Passage:
    try:
        probed = await hosts.probe(end, ctx)
    except StageError as error:
        return Passage(end.host, end.other, None, f"{end.host}: {error.summary}")
    trouble = probed.trouble(f"{end.peer_addresses[0]} answers no ping")
    return Passage(end.host, end.other, not trouble, trouble)


async def _silent(ends: Sequence[EndState], ctx: ReadContext) -> tuple[EndState, ...]:
    """The tunnels through which nothing answers, whatever the host does with what comes through."""
    found = await all_of(hosts.probe(end, ctx) for end in ends)
    return tuple(end for end, probed in zip(ends, found, strict=True) if not probed.answered)


async def _speaking(ends: Sequence[EndState], ctx: ReadContext) -> Passage:
    """Pings between the ends of a tunnel need no routes: without BGP nothing else finds its way."""
    host, peers = ends[0].host, [end.peer_addresses[0] for end in ends]
    try:
        done = await ctx.places.reach(host).query(_SESSIONS)
    except StageError as error:
        return Passage(host, "BGP", None, f"{host}: {error.summary}")
    spoken = speaks(done.text(), peers)
    return Passage(host, "BGP", spoken, "" if spoken else f"no session with {' or '.join(peers)}")


def speaks(connections: str, peers: Sequence[str]) -> bool:
    """Whether there is a connection with one of these peers (pure)."""
    others = {line.split()[-1].rpartition(":")[0] for line in connections.splitlines() if line.strip()}
    return not others.isdisjoint(peers)


async def _beyond(spec: AwsVpnSpec, ctx: ReadContext) -> Passage:
    try:
        passed = await ping(spec, ctx)
    except StageError as error:
        return Passage(spec.host, str(spec.ping), None, f"{spec.host}: {error.summary}")
    return Passage(spec.host, str(spec.ping), passed, "" if passed else "no answer to a ping")


async def diagnose(spec: AwsVpnSpec, ctx: ReadContext) -> tuple[Finding, ...]:
    """Every cause that shows: of the host, of each tunnel, of BGP when both tunnels are well."""
    if await recall(ctx.kept) is None:
        return ()
    try:
        view = await look(spec, ctx, probe=True)
    except StageError as error:
        return (Finding(Cause.UNKNOWN, "", f"{spec.host} cannot be looked at: {error.summary}", error.hint),)
    found = tuple(causes(view))
    bgp = sessions_of(spec, view.ends)
    if found or bgp is None:
        return found
    return tuple(_for_cloud(one, one.words) for one in await BgpProvider().diagnose(bgp, ctx))


def causes(view: View) -> Iterator[Finding]:
    """What is wrong with the tunnels; pure. What is of the whole host, or of both alike, is said once."""
    told = {look.ends[0].other: findings(look) for look in view.looks}
    down = next((one for found in told.values() for one in found if one.cause is Cause.DAEMON_DOWN), None)
    if down is not None:
        yield down
        return
    heads = [found[0] for found in told.values() if found]
    alike = {Cause.UNREACHABLE if one.cause in _SILENT else one.cause for one in heads}
    if len(heads) == len(view.looks) and len(alike) == 1:
        state = "pass nothing on" if heads[0].cause is Cause.FORWARD_DROPPED else "are down"
        yield _for_cloud(heads[0], f"both tunnels {state}: {heads[0].words}")
        return
    for name, found in told.items():
        for one in found:
            yield _for_cloud(one, f"{name}: {one.words}")


def _for_cloud(one: Finding, words: str) -> Finding:
    """Nobody here writes the other side's files: what to do is another thing than between two own gateways."""
    return replace(one, words=words, hint=_HINTS.get(one.cause, one.hint))


def repairs(spec: AwsVpnSpec) -> tuple[Repair, ...]:
    """All of them on the host: the cloud repairs its own side."""
    return tuple(Repair(name, spec.host) for name in (RE_INITIATE, REAPPLY, RESTART))


async def repair(spec: AwsVpnSpec, step: Repair, ctx: StageContext) -> None:
    """Take one step. A tunnel that carries traffic is never disturbed: a step that would do so is refused."""
    memory = await recall(ctx.kept)
    if memory is None or not memory.applied:
        raise NotReadyError("the tunnels have not been made yet", hint="`skyspan up` makes them")
    ends, seen = await planned(spec, ctx, probe=False)
    view = View(views(spec, ends, seen))
    silent = await _silent(ends, ctx)
    _refuse_in_vain(view, step, silent)
    ctx.report.line(f"repair: {step.name} on {step.host}")
    if step.name == RESTART:
        await hosts.restart(ends[0], ctx)
    if step.name in (REAPPLY, RESTART):
        for one in view.looks:
            await hosts.converge(one.ends[0], one, ctx)
    await all_of(hosts.initiate(end, ctx) for end in await _silent(silent, ctx))
    bgp = sessions_of(spec, ends)
    if bgp is not None and step.name in (REAPPLY, RESTART):
        await BgpProvider().repair(bgp, Repair(RELOAD, step.host), ctx)


def _refuse_in_vain(view: View, step: Repair, silent: Sequence[EndState]) -> None:
    """A step that cannot help takes seconds that a better one can use, and a restart ends what is well."""
    answers = view.seen[0].answers
    carrying = [end for end in view.ends if end not in silent]
    where = f"{step.name} on {step.host}"
    if step.name == RE_INITIATE and not answers:
        raise NotReadyError(f"{where} cannot help: charon does not run there")
    if step.name == RE_INITIATE and not silent:
        raise NotReadyError(f"{where} cannot help: there is an answer through both tunnels")
    if step.name == RESTART and carrying and answers:
        raise NotReadyError(f"{where} would cut {carrying[0].other}, which carries traffic")
