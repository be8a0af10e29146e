"""Which addresses the ends of a link have inside the tunnel: pure, and the same as long as an end is a side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_interface, ip_network
from typing import TypeAlias

from skyspan.model.address import StageAddress
from skyspan.model.error import SpecError
from skyspan.networks.addressing import (
    POOL_V6,
    POOLS_V4,
    SHARED_LENGTH_V4,
    SHARED_LENGTH_V6,
    SHARED_POOL_V6,
    SHARED_POOLS_V4,
    Network,
    PoolExhaustedError,
    allocate,
    allocate_pair,
)
from skyspan.networks.wireguard.spec import WireguardSpec

Addresses: TypeAlias = Mapping[str, tuple[str, ...]]
"""By host, its addresses inside the tunnel with their prefix length."""


def numbered(spec: WireguardSpec, numbers: Mapping[str, int]) -> Mapping[str, int]:
    """Every side's place among the tunnel addresses, from 0: who had one keeps it, others get the first free."""
    kept = {end.host: numbers[end.host] for end in spec.between if end.host in numbers}
    taken = set(kept.values())
    free = (number for number in range(len(spec.between) + len(taken)) if number not in taken)
    return {end.host: kept[end.host] if end.host in kept else next(free) for end in spec.between}


def tunnel_addresses(spec: WireguardSpec, address: StageAddress, numbers: Mapping[str, int]) -> Addresses:
    """The addresses of every end inside the tunnel. Raises SpecError when none are left."""
    given = {end.host: (str(ip_interface(end.address)),) for end in spec.between if end.address is not None}
    if given:
        return given
    places = numbered(spec, numbers)
    networks = _networks(spec, address)
    if any(place >= _room(network) for place in places.values() for network in networks):
        # Too many came and went for a small network of one's own: they are numbered anew.
        places = numbered(spec, {})
    return {host: tuple(_address(network, place) for network in networks) for host, place in places.items()}


def _networks(spec: WireguardSpec, address: StageAddress) -> list[Network]:
    if spec.tunnel is not None:
        return [ip_network(spec.tunnel)]
    avoid = [net for end in spec.between for net in end.networks]
    try:
        return list(_allocated(str(address), avoid, pair=len(spec.between) == 2))
    except PoolExhaustedError as error:
        raise SpecError(str(error), hint="name a free network that is large enough: `tunnel: 10.254.0.0/24`") from error


def _allocated(seed: str, avoid: Sequence[Network], *, pair: bool) -> Iterator[Network]:
    if pair:
        yield allocate_pair(seed, POOLS_V4, avoid)
    else:
        yield allocate(seed, SHARED_POOLS_V4, avoid, SHARED_LENGTH_V4)
    if any(net.version == 6 for net in avoid):
        yield (
            allocate_pair(seed, (POOL_V6,), avoid)
            if pair
            else allocate(seed, (SHARED_POOL_V6,), avoid, SHARED_LENGTH_V6)
        )


def _offset(network: Network) -> int:
    """All of a /31 or /127 are addresses; else the network's own comes first."""
    return 0 if network.num_addresses == 2 else 1


def _room(network: Network) -> int:
    return network.num_addresses - 2 * _offset(network)


def _address(network: Network, place: int) -> str:
    return f"{network.network_address + _offset(network) + place}/{network.prefixlen}"
