"""When a tailnet stage is ready, leg by leg: daemon, state, tailnet, tags, name, routes, and pings between members.

"Running" alone proves little: it means that the daemon once heard from its server, not that anybody can be reached.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from skyspan.model.error import NotReadyError, StageError
from skyspan.networks.legs import Leg
from skyspan.networks.tailscale import errors
from skyspan.networks.tailscale.compare import Member, tag_mismatch
from skyspan.networks.tailscale.parse import Node, Survey


@dataclass(frozen=True, slots=True)
class MemberLeg(Leg):
    """A condition of a member; `kind` is the error that its failing is."""

    kind: type[StageError] = NotReadyError


def legs_of(member: Member, seen: Survey, others: Sequence[Survey] = ()) -> Iterator[MemberLeg]:
    """What the survey of one host says, in the order in which one leg builds on the one before.

    That its routes are approved may be known to `others` only: Headscale tells a router itself when it connects again.
    """
    name = f"tailscaled of {member.host}"
    if seen.node is None:
        why = seen.trouble.splitlines()[-1] if seen.trouble else f"it is {seen.state}"
        yield MemberLeg(name, why, f"on {member.host}: systemctl status tailscaled", errors.DaemonUnavailableError)
        return
    yield MemberLeg(name)
    state = _state(member, seen.node)
    yield state
    if state.ok and not seen.led:
        hint = f"`skyspan up` restarts tailscaled; on {member.host}: ip link show tailscale0; ip route show table 52"
        lost = "its interface is down, or has lost its routes"
        yield MemberLeg(f"way of {member.host} into the tailnet", lost, hint, errors.WayLostError)
    if state.ok:
        told = {route for other in others for route in other.peers.get(member.fqdn, ())}
        yield from _membership(member, seen.node, told)


def _state(member: Member, node: Node) -> MemberLeg:
    name = f"{member.host} in the tailnet"
    if node.expired:
        hint = "bring it up again with a valid auth key"
        return MemberLeg(name, f"its node key expired at {node.key_expiry or 'some time'}", hint, errors.NotJoinedError)
    if node.state == "Running":
        return MemberLeg(name)
    if node.state == "NeedsMachineAuth":
        hint = "approve it in the admin console"
        return MemberLeg(name, "it waits for approval", hint, errors.ApprovalRequiredError)
    health = f" ({node.health[0]})" if node.health else ""
    words = {"NeedsLogin": "it is logged out", "Stopped": "it is stopped"}.get(node.state, f"it is {node.state}")
    return MemberLeg(name, words + health, "`skyspan up` joins it", errors.NotJoinedError)


def _membership(member: Member, node: Node, told: set[str]) -> Iterator[MemberLeg]:
    elsewhere = node.suffix and node.suffix != member.domain
    yield MemberLeg(
        f"{member.host} in {member.domain}",
        f"it is in {node.suffix}" if elsewhere else "",
        "correct `tailnet_domain` (the admin console shows it on its DNS page), or use a key of that tailnet",
        errors.WrongTailnetError,
    )
    wrong = node.tags != member.tags and bool(member.tags or not member.by_key)
    mismatch = tag_mismatch(member, node) if wrong else None
    name = f"tags of {member.host}"
    yield MemberLeg(name, mismatch.summary, mismatch.hint, errors.TagMismatchError) if mismatch else MemberLeg(name)
    renamed = node.name != member.fqdn and not elsewhere
    yield MemberLeg(
        f"name of {member.host}",
        f"the tailnet calls it {node.name or 'nothing'}, not {member.fqdn}" if renamed else "",
        f"remove the other member called {member.host} (an old one of this host, perhaps), and bring it up again",
        errors.NameTakenError,
    )
    missing = sorted(set(member.routes) - set(node.routes) - told)
    if member.routes:
        yield MemberLeg(
            f"routes of {member.host}",
            f"not approved: {', '.join(missing)}" if missing else "",
            "approve them in the admin console or by `headscale nodes approve-routes`; a lone router hears of it when "
            "tailscaled restarts",
            errors.RoutesNotApprovedError,
        )


def pairs(members: Sequence[Member]) -> tuple[tuple[Member, Member], ...]:
    """Who pings whom: everyone the next, in a circle; nobody where there is only one."""
    if len(members) < 2:
        return ()
    return tuple((one, members[(place + 1) % len(members)]) for place, one in enumerate(members))


def ping_leg(one: Member, other: Member, answer: str | None) -> MemberLeg:
    """The leg of a ping; `answer` is None when it came, else the tool's words."""
    name = f"ping from {one.host} to {other.host}"
    if answer is None:
        return MemberLeg(name)
    hint = f"does the tailnet's policy let {one.host} reach {other.host}? If it is not to, set `ping: false`"
    return MemberLeg(name, answer or "no answer", hint)
