"""Choosing a free network in a pool: the same one for the same number, beside everything that must be avoided."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network


def free_network(
    number: int, pool: IPv4Network | IPv6Network, avoid: Iterable[IPv4Network | IPv6Network], length: int
) -> IPv4Network | IPv6Network | None:
    """A network of that prefix length (or the whole pool, when that is smaller) in `pool`; None when none is free.

    The number chooses the place; from there on, around the end of the pool, the first network is taken that overlaps
    nothing of `avoid`. Networks of the other IP version are in nobody's way.
    """
    avoided = [network for network in avoid if network.version == pool.version]
    size = 1 << (pool.max_prefixlen - max(length, pool.prefixlen))
    count = pool.num_addresses // size
    first = int(pool.network_address)
    place = number % count
    # Each obstacle is jumped over whole, at most once before and once after the end of the pool.
    for _ in range(2 * len(avoided) + 1):
        free = ip_network((first + size * place, max(length, pool.prefixlen)))
        obstacle = next((network for network in avoided if network.overlaps(free)), None)
        if obstacle is None:
            return free
        if obstacle.num_addresses >= pool.num_addresses:
            return None
        place = ((int(obstacle.broadcast_address) - first) // size + 1) % count
    return None
