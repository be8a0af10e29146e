"""What a probe of an end says, what needs no packet to be certain, and who is to call again: pure."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

from skyspan.contracts.context import ReadContext
from skyspan.contracts.host import Host
from skyspan.contracts.watch import Cause, Finding
from skyspan.model.address import DeploymentAddress
from skyspan.model.error import HostKeyError
from skyspan.networks.proving import Probe
from skyspan.networks.wireguard.hosts import probe
from skyspan.networks.wireguard.keys import Memory, keys_of, with_keys
from skyspan.networks.wireguard.link import EndState, plan_ends
from skyspan.networks.wireguard.parse import NEVER, Peer, Survey
from skyspan.networks.wireguard.spec import WireguardSpec
from skyspan.networks.wireguard.watch import Scene, diagnosis, local, passages, probe_command, stale_callers

ADDRESS = DeploymentAddress("default", "hub").stage("link")
SPEC = WireguardSpec.model_validate(
    {
        "hub": "hub",
        "between": [
            {"host": "hub", "prefixes": ["10.1.0.0/24"]},
            {"host": "a", "prefixes": ["10.2.0.0/24"]},
            {"host": "b", "prefixes": ["10.3.0.0/24"], "nat": True},
        ],
    }
)
HOSTS = {name: Host(name, f"192.0.2.{number}") for number, name in enumerate(("hub", "a", "b"), 1)}
ENDS = plan_ends(SPEC, ADDRESS, HOSTS, {})
BY_HOST = {end.host: end for end in ENDS}
KEYS = keys_of(SPEC, with_keys(Memory(), SPEC))
assert KEYS is not None
NOW = 1_700_000_000


def address(host: str) -> str:
    return BY_HOST[host].addresses[0].partition("/")[0]


def said(end: EndState, **answers: str) -> str:
    """What the probe of an end prints when all is well but for `answers`."""
    lines = [f"{address(peer.host)} {answers.get(peer.host, 'yes')}" for peer in end.peers]
    lines += [f"routed {net}" for net in end.destinations]
    return "\n".join(lines) + "\n"


def told(end: EndState, text: str) -> dict[str, str]:
    return {passage.target: passage.reason for passage in passages(end, text)}


def test_a_peer_that_answers_and_is_routed_to_is_reached() -> None:
    hub = BY_HOST["hub"]
    assert told(hub, said(hub)) == {"a": "", "b": ""}
    assert told(hub, said(hub, a="no")) == {"a": f"no answer from {address('a')}", "b": ""}


def test_a_ping_between_gateways_does_not_hide_a_way_that_is_missing() -> None:
    hub = BY_HOST["hub"]
    interface = hub.interface
    text = said(hub).replace("routed 10.2.0.0/24\n", "")
    assert told(hub, text) == {"a": f"10.2.0.0/24 is not routed over {interface}", "b": ""}
    held = said(hub) + "held 4\n"
    assert set(told(hub, held).values()) == {"forwarding of IPv4 is off"}


async def test_an_end_whose_host_key_is_unknown_is_unknown_itself() -> None:
    """As after a host came back under another address: the way to it is in doubt, not the link."""

    class Places:
        def reach(self, host: str) -> None:
            raise HostKeyError(f"the host key of {host} is unknown")

    ctx = cast(ReadContext, SimpleNamespace(places=Places()))
    found = await probe(BY_HOST["a"], ctx)
    assert [(passage.source, passage.target, passage.passed) for passage in found] == [("a", "hub", None)]


def test_a_probe_asks_for_what_the_end_forwards_and_nothing_secret() -> None:
    argv = [str(word) for word in probe_command(BY_HOST["hub"]).argv]
    assert argv[4:] == [BY_HOST["hub"].interface, "241", "4", address("a"), address("b")]


def survey(host: str, handshakes: dict[str, int], **changes: object) -> Survey:
    """An end that stands, with the stamps of its handshakes by peer."""
    assert KEYS is not None
    end = BY_HOST[host]
    peers = tuple(
        Peer(KEYS.public[peer.host], "192.0.2.9:51820", tuple(sorted(peer.allowed_ips)), handshakes[peer.host], 0, 100)
        for peer in end.peers
    )
    seen = Survey({}, NOW, "", present=True, up=True, public_key=KEYS.public[host], peers=peers, forwarding={4: True})
    return replace(seen, **changes)  # type: ignore[arg-type]


def scene(**changes: Survey) -> Scene:
    assert KEYS is not None
    stamps = {"hub": {"a": NOW, "b": NOW}, "a": {"hub": NOW}, "b": {"hub": NOW}}
    return Scene(ENDS, KEYS, [changes.get(end.host) or survey(end.host, stamps[end.host]) for end in ENDS])


def callers(of: Scene) -> list[tuple[str, tuple[str, ...]]]:
    return [(end.host, peers) for end, peers in stale_callers(of)]


def test_who_holds_a_session_that_is_forgotten_calls_again_where_nobody_can_call_it() -> None:
    assert callers(scene()) == []
    forgetful = survey("hub", {"a": NEVER, "b": NEVER})
    assert callers(scene(hub=forgetful)) == [("b", ("hub",))], "a is called by the hub itself"
    # Nobody has a session yet: there is nothing to forget.
    assert callers(scene(hub=forgetful, b=survey("b", {"hub": NEVER}))) == []


def test_a_scene_of_some_ends_only_is_enough() -> None:
    whole = scene(hub=survey("hub", {"a": NEVER, "b": NEVER}))
    some = Scene(tuple(end for end in ENDS if end.host != "a"), whole.keys, (whole.seen[0], whole.seen[2]))
    assert callers(some) == [("b", ("hub",))]


def test_only_what_a_host_knows_by_itself_needs_no_pings() -> None:
    certain = Finding(Cause.INTERFACE_MISSING, "a", "it is gone")
    guess = Finding(Cause.HANDSHAKE_MISSING, "b", "no handshake")
    assert local((guess, certain)) == (certain,)


def unanswered(host: str, other: str, before: int) -> Survey:
    """An end whose pings got no answer; `before` is what had come from the other one until then, of 100 bytes."""
    assert KEYS is not None
    stamps = {peer.host: NOW for peer in BY_HOST[host].peers}
    return survey(host, stamps, probes=(Probe(address(other), 36, False),), before={KEYS.public[other]: before})


def causes(of: Scene) -> set[tuple[Cause, str]]:
    return {(finding.cause, finding.where) for finding in diagnosis(of) if finding.cause is not Cause.ROUTE_MISSING}


def test_a_way_that_is_cut_is_not_mistaken_for_a_firewall() -> None:
    cut = scene(hub=unanswered("hub", "a", 100), a=unanswered("a", "hub", 100))
    assert causes(cut) == {(Cause.UNREACHABLE, "hub"), (Cause.UNREACHABLE, "a")}
    dropped = scene(hub=unanswered("hub", "a", 60), a=unanswered("a", "hub", 60))
    assert causes(dropped) == {(Cause.FORWARD_DROPPED, "hub"), (Cause.FORWARD_DROPPED, "a")}
