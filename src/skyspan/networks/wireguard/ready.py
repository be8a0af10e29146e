"""When a link is ready, leg by leg: an interface, a fresh handshake, pings, a full-size packet, the expected services.

A handshake alone proves little: traffic may still be dropped by size, by a firewall or for want of a way back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from skyspan.contracts.context import Places
from skyspan.model.error import UnreachableError
from skyspan.networks.endpoints import parse_endpoint
from skyspan.networks.wireguard.keys import Keys
from skyspan.networks.wireguard.link import EndState, PeerState
from skyspan.networks.wireguard.parse import NEVER, Probe, Survey

HANDSHAKE_AGE_S = 180
"""After that a session is not used any more: REJECT_AFTER_TIME in the WireGuard paper, section 6.1."""

DIAL_TIMEOUT_S = 3.0

TOO_LARGE = (
    "the underlay carries less: set a lower `mtu` (a packet grows by 60 bytes on its way over IPv4, by 80 over IPv6)"
)
"""Headers of IP and UDP and 32 bytes of WireGuard's own."""


@dataclass(frozen=True, slots=True)
class Leg:
    """One condition of readiness; `reason` says why it fails, `hint` what to look at."""

    name: str
    reason: str = ""
    hint: str = ""

    @property
    def ok(self) -> bool:
        """Whether it holds."""
        return not self.reason

    def record(self) -> dict[str, Any]:
        """As published in the stage's `report`."""
        return {"leg": self.name, "ok": self.ok} | ({"reason": self.reason} if self.reason else {})

    def line(self) -> str:
        """For people."""
        return f"{'ok  ' if self.ok else 'FAIL'} {self.name}{': ' if self.reason else ''}{self.reason}"


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
                probes = [probe for probe in survey.probes if probe.address == address]
                yield from _pings(end, peer.host, probes, address)


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


def _pings(end: EndState, other: str, probes: Sequence[Probe], address: str) -> Iterator[Leg]:
    small = next((probe for probe in probes if probe.size < end.mtu), None)
    big = next((probe for probe in probes if probe.size >= end.mtu), None)
    name = f"ping from {end.host} to {other} ({address})"
    answered = small is not None and small.answered
    yield Leg(name, "" if answered else "no answer", "" if answered else f"does a firewall of {other} drop it?")
    if answered:
        fits = big is not None and big.answered
        size = f"packets of {end.mtu} bytes from {end.host} to {other}"
        yield Leg(size, "" if fits else "lost", "" if fits else TOO_LARGE)


async def expected(services: Sequence[str], ends: Sequence[EndState], places: Places) -> tuple[Leg, ...]:
    """Dial every expected service from the gateway of the other side."""
    return tuple(await asyncio.gather(*(_dial(service, ends, places) for service in services)))


async def _dial(service: str, ends: Sequence[EndState], places: Places) -> Leg:
    address, port = parse_endpoint(service)
    end = next(end for end in ends if any(ip_address(address) in net for net in end.there))
    name = f"tcp {service} from {end.host}"
    try:
        connection = await places.reach(end.host).dial(address, port or 0, DIAL_TIMEOUT_S)
    except UnreachableError as error:
        back = f"{_back(end)} by {_behind(end, address)}"
        hint = f"does it listen, does `allow` name its port, and does its machine route {back}?"
        return Leg(name, error.summary, hint)
    await connection.close()
    return Leg(name)


def _behind(end: EndState, address: str) -> str:
    """The gateway of that address, as this end sees it."""
    return next(peer.host for peer in end.peers if any(ip_address(address) in net for net in peer.behind))


def _back(end: EndState) -> str:
    return ", ".join(str(net) for net in end.here)


def summary(legs: Sequence[Leg]) -> str:
    """The first leg that fails, and how many do; empty when all hold."""
    failed = [leg for leg in legs if not leg.ok]
    if not failed:
        return ""
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    return f"{failed[0].name}: {failed[0].reason}{more}"


def clock_differences(ends: Sequence[EndState], seen: Sequence[Survey], here: float) -> Mapping[str, float]:
    """By host, how many seconds its clock is ahead of this machine's."""
    return {end.host: survey.now - here for end, survey in zip(ends, seen, strict=True)}
