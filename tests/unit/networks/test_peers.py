"""Which ends and routes can work."""

from __future__ import annotations

from ipaddress import ip_network

from skyspan.networks.peers import Route, Site, conflicts, shadowed


def site(name: str, *prefixes: str, endpoint: str = "") -> Site:
    return Site(name, tuple(ip_network(prefix) for prefix in prefixes), endpoint)


def connected(prefix: str, device: str = "lan") -> Route:
    return Route(ip_network(prefix), device, "kernel", connected=True)


def test_sites_with_prefixes_of_their_own_can_be_joined() -> None:
    one = site("a", "10.1.0.0/16", endpoint="198.51.100.1")
    ends = (one, site("b", "10.2.0.0/16", "2001:db8::/48", endpoint="gw.b"))
    assert list(conflicts(ends, (ip_network("10.255.0.0/31"),))) == []


def test_overlapping_prefixes_of_two_sites_are_found() -> None:
    assert list(conflicts((site("a", "10.0.0.0/8"), site("b", "10.2.0.0/16")))) == [
        "prefix 10.0.0.0/8 of a overlaps 10.2.0.0/16 of b"
    ]


def test_the_same_prefix_twice_on_one_side_is_found() -> None:
    assert "overlap" in next(conflicts((site("a", "10.1.0.0/16", "10.1.0.0/16"), site("b", "10.2.0.0/16"))))


def test_an_endpoint_inside_its_own_prefix_is_a_loop() -> None:
    other = site("b", "10.2.0.0/16", endpoint="10.1.0.9")
    found = list(conflicts((site("a", "10.1.0.0/16", endpoint="10.1.0.1"), other)))
    assert len(found) == 1
    assert "endpoint 10.1.0.1 of a lies inside its own prefix 10.1.0.0/16" in found[0]


def test_an_ipv6_endpoint_is_seen_with_brackets_and_without() -> None:
    for text in ("2001:db8::1", "[2001:db8::1]"):
        assert len(list(conflicts((site("a", "2001:db8::/32", endpoint=text),)))) == 1


def test_prefixes_that_hold_the_tunnels_own_addresses_are_found() -> None:
    found = list(conflicts((site("a", "10.0.0.0/8"), site("b", "192.0.2.0/24")), (ip_network("10.255.0.0/31"),)))
    assert found == ["prefix 10.0.0.0/8 of a overlaps the tunnel's own addresses 10.255.0.0/31"]


def test_a_connected_network_is_not_taken_over() -> None:
    for wanted in ("192.168.1.0/24", "192.168.1.128/25"):
        found = list(shadowed([ip_network(wanted)], [connected("192.168.1.0/24")], "sky-1", "241"))
        assert found == [f"{wanted} would take over the connected network 192.168.1.0/24 of lan"]


def test_a_wider_prefix_leaves_a_connected_network_alone() -> None:
    assert not list(shadowed([ip_network("192.168.0.0/16")], [connected("192.168.1.0/24")], "sky-1", "241"))


def test_somebody_elses_route_for_the_same_prefix_is_not_replaced() -> None:
    theirs = Route(ip_network("10.2.0.0/16"), "eth0", "static")
    assert list(shadowed([ip_network("10.2.0.0/16")], [theirs], "sky-1", "241"))
    assert not list(shadowed([ip_network("10.2.0.0/24")], [theirs], "sky-1", "241"))


def test_our_own_routes_are_not_in_the_way() -> None:
    ours = Route(ip_network("10.2.0.0/16"), "sky-1", "241")
    assert not list(shadowed([ip_network("10.2.0.0/16")], [ours, connected("10.2.0.0/16", "sky-1")], "sky-1", "241"))
