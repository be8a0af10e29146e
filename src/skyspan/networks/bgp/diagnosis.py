"""Why sessions do not carry traffic as they should, in words: pure, from what the surveys and pings found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from skyspan.contracts.watch import Cause, Finding
from skyspan.networks.addressing import Network
from skyspan.networks.bgp.parse import Heard, NextHop, Survey
from skyspan.networks.bgp.ready import Way, dropped_by_wireguard, goes_to_a_speaker, target_in
from skyspan.networks.bgp.speaking import Conversation, Instance


def findings(
    instances: Sequence[Instance],
    seen: Sequence[Survey],
    silent: Sequence[Way],
) -> tuple[Finding, ...]:
    """Every cause that can be seen, the most basic first; that a session with a speaker which does not run is not up
    is none. `silent` are the pings that got no answer."""
    both = list(zip(instances, seen, strict=True))
    found = [item for instance, survey in both for item in _basics(instance, survey)]
    broken = {item.where for item in found}
    ended = frozenset(instance.host for instance, survey in both if not survey.alive)
    for instance, survey in both:
        if instance.host not in broken:
            found += _sessions(instance, survey, silent, ended)
        found += _allowed(instance, survey)
        found += _own(instance, survey)
    if not found:
        found += [_unanswered(way) for way in silent]
    return tuple(dict.fromkeys(found))


def _basics(instance: Instance, survey: Survey) -> Iterator[Finding]:
    host = instance.host
    for item in instance.conversations:
        if not item.multihop and not survey.device_of(item.local):
            yield Finding(
                Cause.INTERFACE_MISSING,
                host,
                f"no interface of {host} has {item.local}: the link to {item.peer_host} is not there",
                "repair the link that the session runs over",
            )
    if not survey.alive:
        daemon = survey.daemon or "the daemon"
        yield Finding(Cause.DAEMON_DOWN, host, f"{daemon} of this stage does not run on {host}", "start it again")


def _sessions(instance: Instance, survey: Survey, silent: Sequence[Way], ended: frozenset[str]) -> Iterator[Finding]:
    for item in instance.conversations:
        if item.peer_host in ended:
            continue
        heard = survey.heard.get(item.name, Heard())
        if not heard.established:
            yield _down(instance, item, heard, silent)
            continue
        if instance.bfd is not None and not heard.bfd:
            yield Finding(
                Cause.SERVICE_DOWN,
                instance.host,
                f"BFD of {instance.host} with {item.peer_host} is down though their session is up",
                f"admit udp/3784 on the link between {item.local} and {item.peer}",
            )
        yield from _prefixes(instance, item, heard, survey)


def _down(instance: Instance, item: Conversation, heard: Heard, silent: Sequence[Way]) -> Finding:
    host, peer = instance.host, item.peer_host
    why = f"{heard.state or 'absent'}{f', {heard.error}' if heard.error else ''}"
    words = f"the session of {host} with {peer} ({item.peer}) is not up: {why}"
    if "max_prefixes" in heard.error:
        return Finding(Cause.PREFIX_LEAKED, host, words, f"find out what {peer} announces, or raise `max_prefixes`")
    if any(sign in heard.error.lower() for sign in ("peer as", "bad bgp identifier", "open message")):
        return Finding(Cause.AUTHENTICATION, host, words, f"`asn` or `router_id` of {peer} is another than declared")
    if any(way.from_host == host and way.target == item.peer for way in silent):
        return Finding(Cause.UNREACHABLE, host, f"{words}; {item.peer} does not answer a ping", "repair the link first")
    hint = f"admit tcp/{instance.port} on the link, and give both ends the same `password`"
    return Finding(Cause.SERVICE_DOWN, host, f"{words}, though {item.peer} answers", hint)


def _prefixes(instance: Instance, item: Conversation, heard: Heard, survey: Survey) -> Iterator[Finding]:
    host, peer = instance.host, item.peer_host
    missing = [net for net in item.receive if str(net) not in heard.received]
    if missing:
        yield Finding(
            Cause.PREFIX_MISSING,
            host,
            f"{peer} does not announce {_listed(missing)} to {host}",
            f"look at {peer} first",
        )
    if heard.refused:
        leaked = ", ".join(sorted(heard.refused))
        yield Finding(
            Cause.PREFIX_LEAKED,
            host,
            f"{peer} sends {leaked}, which nobody declared: {host} refuses it",
            f"add it to `announce` of {peer}, or have {peer} keep it",
        )
    for net in item.receive:
        hop = survey.next_hops.get(target_in(net), NextHop())
        if str(net) in heard.received and not item.multihop and not goes_to_a_speaker(instance, net, survey):
            way = f"over {hop.device}" if hop.device else "nowhere"
            yield Finding(
                Cause.ROUTE_MISSING,
                host,
                f"{host} learned {net} from {peer}, but sends it {way}",
                "remove the other route",
            )


def _allowed(instance: Instance, survey: Survey) -> Iterator[Finding]:
    """The trap of WireGuard: routes do not matter to it, only AllowedIPs, towards the peer and from it."""
    for item in instance.conversations:
        dropped = dropped_by_wireguard(item, survey)
        if dropped:
            device = item.device or survey.device_of(item.local)
            yield Finding(
                Cause.ALLOWED_IPS,
                instance.host,
                f"AllowedIPs of {item.peer_host} on {device} of {instance.host} do not cover {_listed(dropped)}: "
                "WireGuard drops such packets in both directions, whatever BGP learned",
                f"add {_listed(dropped)} to `prefixes` of {item.peer_host} in the stage of the link",
            )


def _own(instance: Instance, survey: Survey) -> Iterator[Finding]:
    """What is announced but cannot be reached from where it is announced."""
    links = {item.device or survey.device_of(item.local) for item in instance.conversations}
    for net in instance.announce:
        hop = survey.next_hops.get(target_in(net), NextHop())
        if not hop.device or hop.device in links:
            way = f"sends it back over {hop.device}" if hop.device else "has no way to it"
            yield Finding(
                Cause.RETURN_ROUTE_MISSING,
                instance.host,
                f"{instance.host} announces {net}, but {way}",
                f"bring up what has {net}, or route it on {instance.host}",
            )


def _unanswered(way: Way) -> Finding:
    return Finding(
        Cause.FORWARD_DROPPED,
        way.to_host,
        f"{way.target} of {way.to_host} does not answer {way.source} of {way.from_host}, though every route is there",
        "does a firewall drop icmp between them?",
    )


def _listed(networks: Sequence[Network]) -> str:
    return ", ".join(map(str, networks))


def by_host(answered: Mapping[tuple[str, str, str], bool], ways: Sequence[Way]) -> tuple[Way, ...]:
    """The pings without an answer."""
    return tuple(way for way in ways if not answered.get((way.from_host, way.source, way.target), False))
