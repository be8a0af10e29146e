"""Allocation of tunnel addresses and interface names."""

from __future__ import annotations

import random
from ipaddress import IPv4Network, ip_network

import pytest

from skyspan.networks.addressing import (
    INTERFACE_LENGTH,
    POOL_V6,
    POOLS_V4,
    Network,
    PoolExhaustedError,
    allocate_pair,
    interface_name,
)


def networks(*texts: str) -> list[Network]:
    return [ip_network(text) for text in texts]


def test_the_same_link_always_gets_the_same_pair() -> None:
    one = allocate_pair("default/hybrid/link", POOLS_V4, ())
    assert one == allocate_pair("default/hybrid/link", POOLS_V4, ())
    assert one != allocate_pair("default/hybrid/other", POOLS_V4, ())
    assert one.prefixlen == 31


def test_a_pair_never_overlaps_what_is_to_be_avoided() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(300):
        avoid = networks(
            *(str(IPv4Network((f"10.255.{chance.randrange(256)}.0", 24), strict=False)) for _ in range(6)),
            str(IPv4Network((f"10.255.{chance.randrange(256)}.0", chance.randrange(17, 25)), strict=False)),
        )
        pair = allocate_pair(str(chance.random()), POOLS_V4, avoid)
        assert not any(pair.overlaps(net) for net in avoid)
        assert pair.subnet_of(POOLS_V4[0])  # type: ignore[arg-type]


def test_a_site_that_uses_all_of_ten_gets_a_pair_of_the_second_pool() -> None:
    assert allocate_pair("a/b/c", POOLS_V4, networks("10.0.0.0/8")).subnet_of(POOLS_V4[1])  # type: ignore[arg-type]


def test_the_last_free_pair_of_a_pool_is_found() -> None:
    pool = networks("192.0.2.0/29")
    assert allocate_pair("x", pool, networks("192.0.2.0/30", "192.0.2.6/31")) == ip_network("192.0.2.4/31")


def test_an_exhausted_pool_says_so() -> None:
    with pytest.raises(PoolExhaustedError, match=r"no tunnel addresses are left in 192\.0\.2\.0/30"):
        allocate_pair("x", networks("192.0.2.0/30"), networks("192.0.2.0/31", "192.0.2.2/31"))


def test_prefixes_of_the_other_family_are_no_obstacle() -> None:
    assert allocate_pair("x", (POOL_V6,), networks("10.0.0.0/8")).prefixlen == 127


def test_interface_names_are_stable_short_and_differ() -> None:
    names = {interface_name(f"default/deployment-{number}/link") for number in range(1000)}
    assert len(names) == 1000
    assert all(len(name) <= INTERFACE_LENGTH for name in names)
    assert interface_name("default/hybrid/link") == interface_name("default/hybrid/link")
