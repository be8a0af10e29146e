"""Watching over a tailnet's members: probes through the tunnel, what is wrong in words, and steps of repair."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.contracts.watch import Cause, Finding, Passage, Repair
from skyspan.model.error import StageError, UnreachableError
from skyspan.networks.looking import all_of
from skyspan.networks.tailscale import compare, errors, hosts
from skyspan.networks.tailscale.compare import Member
from skyspan.networks.tailscale.errors import DaemonUnavailableError
from skyspan.networks.tailscale.parse import Survey
from skyspan.networks.tailscale.ready import MemberLeg, legs_of, pairs
from skyspan.networks.tailscale.spec import TailscaleSpec

_WITHIN = "900ms"

_REAPPLY, _RESTART = "reapply", "restart"

_FOUND_S = 6.0
"""How long a daemon that was started may take until the others have found it again; a second start would only make that
longer."""

_CAUSES: tuple[tuple[type[StageError], Cause], ...] = (
    (errors.DaemonUnavailableError, Cause.DAEMON_DOWN),
    (errors.WayLostError, Cause.INTERFACE_MISSING),
    (errors.TagMismatchError, Cause.WRONG_TAGS),
    (errors.RoutesNotApprovedError, Cause.ROUTE_MISSING),
    (errors.ApprovalRequiredError, Cause.AUTHENTICATION),
    (errors.WrongTailnetError, Cause.AUTHENTICATION),
    (errors.NameTakenError, Cause.AUTHENTICATION),
)


async def probe(members: Sequence[Member], ctx: ReadContext) -> tuple[Passage, ...]:
    """One packet in each direction between neighbours; with a single member, whether its daemon says that it runs."""
    if len(members) == 1:
        return (await _alone(members[0], ctx),)
    forth = [(one.host, other.host) for one, other in pairs(members)]
    both = dict.fromkeys((*forth, *((target, source) for source, target in forth)))
    return tuple(await all_of(_passage(source, target, ctx) for source, target in both))


async def _passage(source: str, target: str, ctx: ReadContext) -> Passage:
    try:
        answer = await hosts.ping(source, target, ctx, _WITHIN)
    except UnreachableError as error:
        return Passage(source, target, None, error.summary)
    except StageError as error:
        return Passage(source, target, False, error.summary)
    return Passage(source, target, answer is None, answer or "")


async def _alone(member: Member, ctx: ReadContext) -> Passage:
    try:
        seen = await hosts.survey(member.host, ctx)
    except UnreachableError as error:
        return Passage(member.host, member.domain, None, error.summary)
    except StageError as error:
        return Passage(member.host, member.domain, False, error.summary)
    passed = compare.is_member(member, seen)
    return Passage(member.host, member.domain, passed, "" if passed else f"it is {seen.state}")


async def diagnose(spec: TailscaleSpec, members: Sequence[Member], ctx: ReadContext) -> tuple[Finding, ...]:
    """What is wrong, host by host; when no host says anything, whether the packets pass."""
    peers = any(member.routes for member in members)
    looks = await all_of(_seen(member, ctx, peers=peers) for member in members)
    others = [seen for seen in looks if isinstance(seen, Survey)]
    found: list[Finding] = []
    for member, seen in zip(members, looks, strict=True):
        found += findings(spec, member, seen, others) if isinstance(seen, Survey) else [seen]
    if found or not spec.ping:
        return tuple(found)
    for passage in await probe(members, ctx):
        if passage.passed is False:
            words = f"packets to {passage.target} get no answer: {passage.reason}"
            hint = f"does the policy allow it, and is UDP open for a direct way or a relay? on {passage.source}: "
            hint += f"tailscale ping {passage.target}; tailscale netcheck"
            found.append(Finding(Cause.UNREACHABLE, passage.source, words, hint))
    return tuple(found)


async def _seen(member: Member, ctx: ReadContext, *, peers: bool) -> Survey | Finding:
    try:
        return await hosts.survey(member.host, ctx, peers=peers)
    except StageError as error:
        return Finding(Cause.UNREACHABLE, member.host, error.summary, error.hint)


def findings(spec: TailscaleSpec, member: Member, seen: Survey, others: Sequence[Survey] = ()) -> Iterator[Finding]:
    """What the surveys say is wrong with one host (pure)."""
    for leg in legs_of(member, seen, others):
        if not leg.ok:
            yield Finding(_cause(leg, seen), member.host, f"{leg.name}: {leg.reason}", leg.hint)
    node = seen.node
    if node is None:
        return
    if node.state == "Running" and not node.online:
        server = spec.login_server or "Tailscale's control server"
        yield Finding(
            Cause.SERVICE_DOWN,
            member.host,
            f"it cannot reach {server}; traffic between known members goes on, changes and new members do not arrive",
            f"can {member.host} resolve and reach {server}?",
        )
    missing = [family for family in member.families if not seen.forwarding.get(family, True)]
    if missing:
        words = f"it is a subnet router and does not forward IPv{missing[0]}"
        yield Finding(Cause.FORWARD_DROPPED, member.host, words, "`skyspan up` turns it on again")


def _cause(leg: MemberLeg, seen: Survey) -> Cause:
    node = seen.node
    if leg.kind is errors.NotJoinedError and node is not None:
        if node.expired or (node.state == "NeedsLogin" and node.has_key):
            return Cause.EXPIRED
        return Cause.AUTHENTICATION if node.state == "NeedsLogin" else Cause.INTERFACE_MISSING
    return next((cause for kind, cause in _CAUSES if leg.kind is kind), Cause.UNKNOWN)


def repairs(spec: TailscaleSpec) -> tuple[Repair, ...]:
    """Gentlest first: start what is stopped and set what was changed, then restart daemons; one host at a time."""
    return tuple(Repair(name, host, _FOUND_S) for name in (_REAPPLY, _RESTART) for host in spec.hosts)


async def repair(spec: TailscaleSpec, step: Repair, ctx: StageContext) -> None:
    """Take one step. A membership that is lost is not joined again here: that takes a key, and a person."""
    member = next(
        member for member in compare.members_of(spec, ctx.hosts, str(ctx.address)) if member.host == step.host
    )
    if step.name == _RESTART:
        await hosts.restart(step.host, ctx)
        return
    seen = await hosts.survey(step.host, ctx)
    if not seen.installed:
        raise DaemonUnavailableError(f"tailscale is not installed on {step.host}", hint="`skyspan up` installs it")
    move = compare.move(member, seen)
    if move is not None and not move.needs_key:
        await hosts.change(spec, member, move, None, ctx)
