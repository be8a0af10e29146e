"""Which tunnel addresses and interface names a link gets: pure, from the link's own name, the same every time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import TypeAlias

from skyspan.model.subnet import free_network

Network: TypeAlias = IPv4Network | IPv6Network

POOLS_V4: tuple[IPv4Network, ...] = (IPv4Network("10.255.0.0/16"), IPv4Network("100.127.0.0/16"))
"""Where pairs of IPv4 tunnel addresses come from. The first is private (RFC 1918) at the end nobody numbers from; the
second is shared address space (RFC 6598), for sites that use the whole of 10.0.0.0/8."""

POOL_V6: IPv6Network = IPv6Network("fd5b:5b:5b::/48")
"""Where pairs of IPv6 tunnel addresses come from: unique local addresses (RFC 4193)."""

INTERFACE_LENGTH = 15
"""Longest name of a Linux network interface: IFNAMSIZ without its NUL."""


SHARED_POOLS_V4: tuple[IPv4Network, ...] = (IPv4Network("10.254.0.0/16"), IPv4Network("100.126.0.0/16"))
"""Where the networks of links with more than two ends come from: beside the pairs, so that they never overlap."""

SHARED_POOL_V6: IPv6Network = IPv6Network("fd5b:5b:5c::/48")
"""The same for IPv6."""

SHARED_LENGTH_V4 = 22
"""Prefix length of the network that a link of more than two ends gets for its tunnel addresses: room for 1,022, so that
ends may come later without the others being numbered anew."""

SHARED_LENGTH_V6 = 64
"""The same for IPv6: what a subnet has (RFC 4291)."""


class PoolExhaustedError(ValueError):
    """Every network of the wanted size in the pools overlaps what must be avoided."""


def stable_number(seed: str) -> int:
    """A number of 64 bits that depends on `seed` alone."""
    return int.from_bytes(hashlib.blake2b(seed.encode(), digest_size=8).digest())


def interface_name(seed: str) -> str:
    """The default name of a link's interface: `sky-` and 8 hexadecimal digits of a digest of `seed`."""
    return f"sky-{hashlib.blake2b(seed.encode(), digest_size=4).hexdigest()}"


def allocate_pair(seed: str, pools: Sequence[Network], avoid: Iterable[Network]) -> Network:
    """The network of two addresses (/31 or /127, RFC 3021 and RFC 6164) for the link named `seed`; as `allocate`."""
    return allocate(seed, pools, avoid, pools[0].max_prefixlen - 1)


def allocate(seed: str, pools: Sequence[Network], avoid: Iterable[Network], length: int) -> Network:
    """A network of that prefix length for the link named `seed`.

    The seed chooses the place in the first pool; from there on the first network that overlaps nothing of `avoid` is
    taken, then the next pool is tried. Raises PoolExhaustedError.
    """
    avoided = tuple(avoid)
    for pool in pools:
        found = free_network(stable_number(seed), pool, avoided, length)
        if found is not None:
            return found
    msg = f"no tunnel addresses are left in {', '.join(map(str, pools))}: all of it overlaps the link's prefixes"
    raise PoolExhaustedError(msg)
