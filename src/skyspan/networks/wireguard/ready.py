"""When a link is ready, leg by leg: an interface, a fresh handshake, pings, a full-size packet, the expected services.

A handshake alone proves little: traffic may still be dropped by size, by a firewall or for want of a way back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address

from skyspan.contracts.context import Places
from skyspan.networks.legs import Leg
from skyspan.networks.proving import ping_legs, service_legs
from skyspan.networks.wireguard.keys import Keys
from skyspan.networks.wireguard.link import EndState, PeerState
from skyspan.networks.wireguard.parse import NEVER, Survey

HANDSHAKE_AGE_S = 180
"""After that a session is not used any more: REJECT_AFTER_TIME in the WireGuard paper, section 6.1."""

TOO_LARGE = (
    "the underlay carries less: set a lower `mtu` (a packet grows by 60 bytes on its way over IPv4, by 80 over IPv6)"
)
"""Headers of IP and UDP and 32 bytes of WireGuard's own."""


def legs_of(ends: Sequence[EndState], keys: Keys, seen: Sequence[Survey]) -> Iterator[Leg]:
    """What the surveys of both ends say, in the order in which one leg builds on the one before."""
    for end, survey in zip(ends, seen, strict=True):
        yield Leg(
            f"interface {end.interface} of {end.host}", "" if survey.up else "down" if survey.present else "absent"
        )
    for end, survey in zip(ends, seen, strict=True):
        for peer in end.peers:
            yield _handshake(end, peer, keys, survey)
    for end, survey in zip(ends, seen, strict=True):
        for peer in end.peers:
            for address in peer.addresses:
                yield from ping_legs((end.host, peer.host), address, end.mtu, survey.probes, TOO_LARGE)


def _handshake(end: EndState, other: PeerState, keys: Keys, survey: Survey) -> Leg:
    name = f"handshake of {end.host} with {other.host}"
    peer = survey.peer(keys.public[other.host])
    where = f"is UDP {other.calls or end.listens} open to the other side, in firewalls and cloud security groups too?"
    if peer is None:
        return Leg(name, "no such peer")
    if peer.handshake == NEVER:
        return Leg(name, f"never, towards {peer.endpoint or 'a side that has not called yet'}", where)
    age = survey.now - peer.handshake
    return Leg(name, f"{age} s ago" if age >= HANDSHAKE_AGE_S else "", where if age >= HANDSHAKE_AGE_S else "")


async def expected(services: Sequence[str], ends: Sequence[EndState], places: Places) -> tuple[Leg, ...]:
    """Dial every expected service from the gateway of the other side."""
    return await service_legs(services, ends, places, lambda end, address: f"{_back(end)} by {_behind(end, address)}")


def _behind(end: EndState, address: str) -> str:
    """The gateway of that address, as this end sees it."""
    return next(peer.host for peer in end.peers if any(ip_address(address) in net for net in peer.behind))


def _back(end: EndState) -> str:
    return ", ".join(str(net) for net in end.here)


def clock_differences(ends: Sequence[EndState], seen: Sequence[Survey], here: float) -> Mapping[str, float]:
    """By host, how many seconds its clock is ahead of this machine's."""
    return {end.host: survey.now - here for end, survey in zip(ends, seen, strict=True)}
