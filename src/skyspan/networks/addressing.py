"""Which tunnel addresses and interface names a link gets: pure, from the link's own name, the same every time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TypeAlias

Network: TypeAlias = IPv4Network | IPv6Network

POOLS_V4: tuple[IPv4Network, ...] = (IPv4Network("10.255.0.0/16"), IPv4Network("100.127.0.0/16"))
"""Where pairs of IPv4 tunnel addresses come from. The first is private (RFC 1918) at the end nobody numbers from; the
second is shared address space (RFC 6598), for sites that use the whole of 10.0.0.0/8."""

POOL_V6: IPv6Network = IPv6Network("fd5b:5b:5b::/48")
"""Where pairs of IPv6 tunnel addresses come from: unique local addresses (RFC 4193)."""

INTERFACE_LENGTH = 15
"""Longest name of a Linux network interface: IFNAMSIZ without its NUL."""


class PoolExhaustedError(ValueError):
    """Every pair of the pools overlaps what must be avoided."""


def stable_number(seed: str) -> int:
    """A number of 64 bits that depends on `seed` alone."""
    return int.from_bytes(hashlib.blake2b(seed.encode(), digest_size=8).digest())


def interface_name(seed: str) -> str:
    """The default name of a link's interface: `sky-` and 8 hexadecimal digits of a digest of `seed`."""
    return f"sky-{hashlib.blake2b(seed.encode(), digest_size=4).hexdigest()}"


def allocate_pair(seed: str, pools: Sequence[Network], avoid: Iterable[Network]) -> Network:
    """The network of two addresses (/31 or /127, RFC 3021 and RFC 6164) for the link named `seed`.

    The seed chooses the place in the first pool; from there on the first pair that overlaps nothing of `avoid` is
    taken, then the next pool is tried. Raises PoolExhaustedError.
    """
    avoided = tuple(avoid)
    for pool in pools:
        found = _free_pair(stable_number(seed), pool, [net for net in avoided if net.version == pool.version])
        if found is not None:
            return found
    msg = f"no tunnel addresses are left in {', '.join(map(str, pools))}: all of it overlaps the link's prefixes"
    raise PoolExhaustedError(msg)


def _free_pair(number: int, pool: Network, avoided: Sequence[Network]) -> Network | None:
    count = pool.num_addresses // 2
    first = int(pool.network_address)
    length = pool.max_prefixlen - 1
    place = number % count
    # Each obstacle is jumped over whole, at most once before and once after the end of the pool.
    for _ in range(2 * len(avoided) + 1):
        pair = ip_network((first + 2 * place, length))
        obstacle = next((net for net in avoided if net.overlaps(pair)), None)
        if obstacle is None:
            return pair
        place = ((int(obstacle.broadcast_address) - first) // 2 + 1) % count
        if obstacle.num_addresses >= pool.num_addresses:
            return None
    return None
