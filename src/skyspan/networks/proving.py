"""What proves that a link carries traffic, whatever carries it: pings of two sizes, and services that answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Protocol, TypeVar

from skyspan.contracts.context import Places
from skyspan.model.error import UnreachableError
from skyspan.networks.addressing import Network
from skyspan.networks.endpoints import parse_endpoint
from skyspan.networks.legs import Leg

_DIAL_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class Probe:
    """An inner ping: to which address, with how many bytes in the whole packet, and whether it was answered."""

    address: str
    size: int
    answered: bool


def parse_probes(text: str) -> tuple[Probe, ...]:
    """Lines of address, size, and yes or no; raises ValueError for others."""
    rows = (line.split() for line in text.splitlines())
    return tuple(Probe(address, int(size), answer == "yes") for address, size, answer in rows)


def ping_legs(gateways: tuple[str, str], address: str, mtu: int, probes: Sequence[Probe], hint: str) -> Iterator[Leg]:
    """What the pings of the first gateway to an inner address of the second say: a small one, and one that fills the
    link. `hint` is for when only the large one is lost."""
    here, there = gateways
    sent = [probe for probe in probes if probe.address == address]
    small = any(probe.answered for probe in sent if probe.size < mtu)
    big = any(probe.answered for probe in sent if probe.size >= mtu)
    name = f"ping from {here} to {there} ({address})"
    yield Leg(name, "" if small else "no answer", "" if small else f"does a firewall of {there} drop it?")
    if small:
        size = f"packets of {mtu} bytes from {here} to {there}"
        yield Leg(size, "" if big else "lost", "" if big else hint)


class Gateway(Protocol):
    """An end of a link."""

    @property
    def host(self) -> str:
        """Where commands run."""
        ...

    @property
    def there(self) -> tuple[Network, ...]:
        """What is behind the others."""
        ...


G = TypeVar("G", bound=Gateway)


async def service_legs(
    services: Sequence[str], ends: Sequence[G], places: Places, back: Callable[[G, str], str]
) -> tuple[Leg, ...]:
    """Dial every service from a gateway that it is on another side of. `back` says which way the answers to that
    gateway have to take from the service's address."""

    async def dial(service: str) -> Leg:
        address, port = parse_endpoint(service)
        end = next(end for end in ends if any(ip_address(address) in net for net in end.there))
        name = f"tcp {service} from {end.host}"
        try:
            connection = await places.reach(end.host).dial(address, port or 0, _DIAL_TIMEOUT_S)
        except UnreachableError as error:
            way = back(end, address)
            hint = f"does it listen, does `allow` name its port, and does its machine route {way}?"
            return Leg(name, error.summary, hint)
        await connection.close()
        return Leg(name)

    return tuple(await asyncio.gather(*(dial(service) for service in services)))
