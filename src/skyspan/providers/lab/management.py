"""Which management network and bridge a lab gets: pure, from the stage's own name, beside everything the host has."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TypeAlias

from skyspan.model.subnet import free_network
from skyspan.providers.lab.topology import Management

Network: TypeAlias = IPv4Network | IPv6Network

POOLS: tuple[IPv4Network, ...] = (IPv4Network("10.253.0.0/16"), IPv4Network("100.125.0.0/16"))
"""Where management networks come from when nobody says otherwise: private (RFC 1918) and shared address space (RFC
6598), beside what links take for their tunnels, and outside what Docker takes by itself (172.17.0.0/12 and
192.168.0.0/16)."""

LENGTH = 24
"""Prefix length of a management network: room for 253 nodes."""

INTERFACE_LENGTH = 15
"""Longest name of a Linux network interface: IFNAMSIZ without its NUL."""


class PoolExhaustedError(ValueError):
    """Every network of the wanted size in the pools overlaps what must be avoided."""


def mark(seed: str) -> str:
    """Eight hexadecimal digits that depend on `seed` alone: short enough for an interface's name."""
    return hashlib.blake2b(seed.encode(), digest_size=4).hexdigest()


def network_name(seed: str) -> str:
    """The name of a lab's management network in Docker."""
    return f"sky-lab-{mark(seed)}"


def bridge_name(seed: str) -> str:
    """The name of its bridge on the host."""
    return f"skl-{mark(seed)}"


def allocate(seed: str, avoid: Iterable[Network], pools: Sequence[Network] = POOLS, length: int = LENGTH) -> Management:
    """A management network for the lab named `seed`.

    The seed chooses the place in the first pool; from there on the first network that overlaps nothing of `avoid` is
    taken, then the next pool is tried. Raises PoolExhaustedError.
    """
    avoided = tuple(avoid)
    for pool in pools:
        found = free_network(int(mark(seed), 16), pool, avoided, length)
        if found is not None:
            return Management(network_name(seed), bridge_name(seed), **{f"ipv{found.version}": str(found)})
    msg = f"no management network is left in {', '.join(map(str, pools))}: all of it overlaps what the host has"
    raise PoolExhaustedError(msg)


def overlapping(subnet: str, taken: Iterable[tuple[str, Network]]) -> list[str]:
    """What `subnet` overlaps, in words; `taken` are networks with who has them."""
    wanted = ip_network(subnet, strict=False)
    return [f"{net} ({owner})" for owner, net in taken if net.version == wanted.version and net.overlaps(wanted)]
