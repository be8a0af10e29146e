"""When the sessions are ready, leg by leg: up, exactly the declared prefixes both ways, BFD up, the kernel's next hop
the link, pings between the sites.

An established session alone proves little: prefixes may be missing, and WireGuard may drop what was learned.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network
from types import MappingProxyType

from skyspan.networks.addressing import Network
from skyspan.networks.bgp.parse import Heard, NextHop, Survey
from skyspan.networks.bgp.speaking import Conversation, Instance
from skyspan.networks.bgp.spec import BgpSpec
from skyspan.networks.legs import Leg

_ANYWHERE: Mapping[int, str] = MappingProxyType({4: "192.0.2.1", 6: "2001:db8::1"})
"""Addresses for documentation (RFC 5737, RFC 3849): nobody routes them more closely than by default."""


@dataclass(frozen=True, slots=True)
class Way:
    """A ping from one host's address to another's."""

    from_host: str
    to_host: str
    source: str
    target: str


def target_in(network: Network) -> str:
    """An address that stands for all of a prefix when a way is asked for."""
    if network.prefixlen == 0:
        return _ANYWHERE[network.version]
    return str(network.network_address + (1 if network.num_addresses > 2 else 0))


def targets_of(instance: Instance) -> tuple[str, ...]:
    """What the survey is to ask the next hop of: all that is to be learned, and all that is announced."""
    return tuple(dict.fromkeys(target_in(net) for net in (*instance.imports, *instance.announce)))


def sites_of(instance: Instance, seen: Survey) -> tuple[str, ...]:
    """The host's own addresses inside what it announces, one per IP version."""
    own = [ip_interface(text).ip for texts in seen.addresses.values() for text in texts]
    links = {item.local for item in instance.conversations}
    inside = [ip for ip in own if str(ip) not in links and any(ip in net for net in instance.announce)]
    by_version = [[ip for ip in inside if ip.version == version] for version in instance.versions]
    return tuple(str(min(found, key=int)) for found in by_version if found)


def ways_between(spec: BgpSpec, instances: Sequence[Instance], sites: Mapping[str, Sequence[str]]) -> tuple[Way, ...]:
    """Every ping that readiness takes: from each site to each one whose prefixes it learns, so also through a hub."""
    found = (
        way for instance in instances for item in instance.conversations for way in _ways(spec, instance, item, sites)
    )
    return tuple(dict.fromkeys(found))


def _ways(spec: BgpSpec, instance: Instance, item: Conversation, sites: Mapping[str, Sequence[str]]) -> Iterator[Way]:
    source = _of_version(sites.get(instance.host, ()), item.version) or item.local
    named = {host: [address] for host, address in spec.probes.items()}
    for speaker in spec.speakers:
        if speaker.host != item.peer_host and not set(speaker.networks) & set(item.receive):
            continue
        target = _of_version(named.get(speaker.host, ()), item.version)
        target = target or _of_version(sites.get(speaker.host, ()), item.version)
        if target and speaker.host != instance.host:
            yield Way(instance.host, speaker.host, source, target)
        elif speaker.host == item.peer_host:
            # Of several speakers of the same prefixes, another one may answer what does not come from the link itself.
            yield Way(instance.host, speaker.host, source if _alone(instance, item) else item.local, item.peer)


def _alone(instance: Instance, item: Conversation) -> bool:
    return not any(set(other.receive) & set(item.receive) for other in instance.conversations if other is not item)


def _of_version(addresses: Iterable[str], version: int) -> str:
    return next((text for text in addresses if ip_address(text).version == version), "")


def legs_of(instances: Sequence[Instance], seen: Sequence[Survey]) -> Iterator[Leg]:
    """What the surveys say, in the order in which one leg builds on the one before."""
    both = list(zip(instances, seen, strict=True))
    for instance, survey in both:
        down = "" if survey.alive else "it does not run"
        yield Leg(
            f"{survey.daemon or 'daemon'} of {instance.host}", down, "`skyspan up` starts it again" if down else ""
        )
    for instance, survey in both:
        for item in instance.conversations:
            heard = survey.heard.get(item.name, Heard())
            yield _session(instance, item, heard)
            if heard.established:
                yield from _exchange(instance, item, heard, survey)


def _session(instance: Instance, item: Conversation, heard: Heard) -> Leg:
    name = f"session of {instance.host} with {item.peer_host} ({item.peer})"
    if heard.established:
        return Leg(name)
    admitted = f"tcp/{instance.port}"
    hint = f"does the link admit {admitted} between {item.local} and {item.peer}, and are `asn` and `password` right?"
    return Leg(name, ": ".join(part for part in (heard.state or "absent", heard.error) if part), hint)


def _exchange(instance: Instance, item: Conversation, heard: Heard, survey: Survey) -> Iterator[Leg]:
    host, peer = instance.host, item.peer_host
    yield Leg(f"what {host} learns from {peer}", _unlike(item.receive, heard.received))
    yield Leg(f"what {host} tells {peer}", _unlike(item.send, heard.sent))
    if instance.bfd is not None:
        down = "" if heard.bfd else "absent" if heard.bfd is None else "down"
        hint = f"does the link admit udp/{4784 if item.multihop else 3784} between {item.local} and {item.peer}?"
        yield Leg(f"BFD of {host} with {peer}", down, hint if down else "")
    for net in item.receive:
        if str(net) in heard.received:
            yield _next_hop(instance, item, net, survey)
    dropped = dropped_by_wireguard(item, survey)
    if dropped:
        prefixes = ", ".join(map(str, dropped))
        yield Leg(
            f"WireGuard of {host} towards {peer}",
            f"its AllowedIPs do not cover {prefixes}",
            f"add {prefixes} to `prefixes` of {peer} in the stage of the link",
        )


def dropped_by_wireguard(item: Conversation, survey: Survey) -> tuple[Network, ...]:
    """The prefixes from the peer that WireGuard drops, towards it and from it, whatever the routes say: those outside
    the AllowedIPs of whoever has the peer's address. Nothing where the link is no WireGuard."""
    carried = survey.allowed.get(item.device or survey.device_of(item.local))
    if carried is None:
        return ()
    towards: tuple[Network, ...] = next(
        (nets for nets in carried if any(ip_address(item.peer) in net for net in nets)), ()
    )
    return tuple(net for net in item.receive if not any(_covers(wide, net) for wide in towards))


def _covers(wide: Network, narrow: Network) -> bool:
    return wide.version == narrow.version and wide.prefixlen <= narrow.prefixlen and wide.overlaps(narrow)


def _unlike(wanted: Sequence[Network], there: Iterable[str]) -> str:
    expected, found = {str(net) for net in wanted}, {str(ip_network(text)) for text in there}
    parts = (("without", expected - found), ("also", found - expected))
    return "; ".join(f"{word} {', '.join(sorted(nets))}" for word, nets in parts if nets)


def _next_hop(instance: Instance, item: Conversation, net: Network, survey: Survey) -> Leg:
    name = f"way of {instance.host} to {net}"
    hop = survey.next_hops.get(target_in(net), NextHop())
    if goes_to_a_speaker(instance, net, survey):
        return Leg(name)
    device = item.device or survey.device_of(item.local)
    reason = f"over {hop.device}, not over {device}" if hop.device else "the kernel has none"
    return Leg(name, reason, "another route is preferred: `ip route get` on the host shows it")


def goes_to_a_speaker(instance: Instance, net: Network, survey: Survey) -> bool:
    """Whether the kernel sends what is for a prefix over the link to one who announces it; of several it takes any."""
    device = survey.next_hops.get(target_in(net), NextHop()).device
    announcing = [item for item in instance.conversations if str(net) in survey.heard.get(item.name, Heard()).received]
    links = {item.device or survey.device_of(item.local) for item in announcing}
    return bool(device) and (device in links or any(item.multihop for item in announcing))


def ping_legs(ways: Sequence[Way], answered: Mapping[tuple[str, str, str], bool]) -> Iterator[Leg]:
    """`answered` is by host, source and target."""
    for way in ways:
        got = answered.get((way.from_host, way.source, way.target), False)
        hint = f"does the link admit icmp, and carry what {way.to_host} announces (WireGuard: its AllowedIPs)?"
        yield Leg(
            f"ping from {way.from_host} ({way.source}) to {way.to_host} ({way.target})",
            "" if got else "no answer",
            "" if got else hint,
        )
