"""VPN connections of the stand-in AWS: what it refuses, chooses and writes, and what their ends are given."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any
from xml.etree import ElementTree

import pytest
from tests.support.cloud_vpn import FACTS, VPN

from skyspan.rehearsal.cloud import vpn_daemons
from skyspan.rehearsal.cloud.networks import edge_filter, settings
from skyspan.rehearsal.cloud.state import CloudRoute, CloudState, Instance, Subnet, ends_of, moves
from skyspan.rehearsal.cloud.vpn import configuration, free_inside, of_account, refusal, tunnel_refusal, unsupported
from skyspan.rehearsal.spec import Rehearsal
from skyspan.rehearsal.underlay import topology

INSIDE = IPv4Network("169.254.10.0/30")


@pytest.mark.parametrize("key", ["aB3._xyz", "x" * 64, "1" * 8, ".leading_dot", "_" * 8])
def test_a_key_that_aws_takes_is_taken(key: str) -> None:
    assert tunnel_refusal({"PreSharedKey": key}) == ""


@pytest.mark.parametrize(
    "key", ["", "short7_", "x" * 65, "0leading-zero", "0abcdefg", "has-hyphen", "spaced out", "ümläuts1"]
)
def test_a_key_that_aws_refuses_is_refused_and_never_repeated(key: str) -> None:
    said = tunnel_refusal({"PreSharedKey": key})
    assert "cannot start with zero" in said
    assert not key or key not in said


@pytest.mark.parametrize(
    ("inside", "fault"),
    [
        *((f"169.254.{third}.0/30", "reserved") for third in range(6)),
        ("169.254.169.252/30", "reserved"),
        ("169.254.10.0/29", "size /30"),
        ("10.0.0.0/30", "size /30"),
        ("169.254.10.1/30", "no IPv4 prefix"),
        ("nonsense", "no IPv4 prefix"),
        (str(INSIDE), "used already"),
    ],
)
def test_an_inside_network_that_aws_refuses_is_refused(inside: str, fault: str) -> None:
    assert fault in tunnel_refusal({"TunnelInsideCidr": inside}, [INSIDE])


def test_both_tunnels_differ_and_there_are_no_more_than_two() -> None:
    same = {"TunnelInsideCidr": str(INSIDE)}
    assert "used already" in refusal({"TunnelOptions": [same, same]}, ())
    assert "two tunnels" in refusal({"TunnelOptions": [{}, {}, {}]}, ())
    assert refusal({"TunnelOptions": [same, {"TunnelInsideCidr": "169.254.10.4/30"}]}, ()) == ""
    assert refusal({}, [INSIDE]) == ""


def test_what_the_stand_in_cannot_be_is_refused() -> None:
    assert "virtual private gateway" in unsupported({"TransitGatewayId": "tgw-1"})
    assert "IPv4" in unsupported({"VpnGatewayId": "vgw-1", "Options": {"TunnelInsideIpVersion": "ipv6"}})
    assert "IPv4" in unsupported({"VpnGatewayId": "vgw-1", "Options": {"OutsideIpAddressType": "PrivateIpv4"}})
    assert unsupported({"VpnGatewayId": "vgw-1", "Options": {"OutsideIpAddressType": "PublicIpv4"}}) == ""


def test_a_chosen_inside_network_is_neither_reserved_nor_taken() -> None:
    assert str(free_inside(iter([0, 64, 10 * 64, 7]), [INSIDE])) == "169.254.0.28/30"


def read(text: str, path: str) -> list[str | None]:
    # The text is our own, a line above.
    return [found.text for found in ElementTree.fromstring(text.encode()).findall(path)]


def test_the_configuration_says_what_was_asked_for_where_aws_says_it() -> None:
    text = configuration(replace(VPN, static=False))
    cloud, customer = ".//ipsec_tunnel/vpn_gateway/", ".//ipsec_tunnel/customer_gateway/"
    for number in (0, 1):
        told = {
            "address": read(text, f"{cloud}tunnel_outside_address/ip_address")[number],
            "vgw_inside_address": read(text, f"{cloud}tunnel_inside_address/ip_address")[number],
            "cgw_inside_address": read(text, f"{customer}tunnel_inside_address/ip_address")[number],
            "preshared_key": read(text, ".//ipsec_tunnel/ike/pre_shared_key")[number],
            "bgp_asn": read(text, f"{cloud}bgp/asn")[number],
        }
        assert told == {name: FACTS[f"tunnel{number + 1}_{name}"] for name in told}
    assert read(text, f"{customer}bgp/asn") == ["65000", "65000"]
    assert read(configuration(VPN), ".//asn") == [], "static routes only: there is no BGP"


def described(**more: Any) -> dict[str, Any]:
    tunnels = [
        {"OutsideIpAddress": str(one.outside), "TunnelInsideCidr": str(one.inside), "PreSharedKey": one.key}
        for one in VPN.tunnels
    ]
    options = {"TunnelOptions": tunnels, "StaticRoutesOnly": True}
    return {
        "VpnConnectionId": VPN.id,
        "CustomerGatewayId": "cgw-1",
        "VpnGatewayId": VPN.gateway,
        "State": "available",
        "Options": options,
        "Routes": [{"DestinationCidrBlock": "10.1.0.0/24"}],
        **more,
    }


def test_an_account_tells_the_connections_that_exist() -> None:
    customer = {"CustomerGatewayId": "cgw-1", "IpAddress": "198.18.1.2", "BgpAsn": "65000"}
    attached = [{"VpcId": "vpc-1", "State": "attached"}]
    gateway = {"VpnGatewayId": VPN.gateway, "AmazonSideAsn": 64512, "VpcAttachments": attached}
    given = [described(), described(State="deleted")]
    (found,) = of_account(given, [customer], [gateway], {"vpc-1": IPv4Network("10.2.0.0/24")})
    assert found == replace(VPN, tunnels=tuple(replace(one, dpd_s=30) for one in VPN.tunnels))
    (alone,) = of_account(given[:1], [customer], [{**gateway, "VpcAttachments": []}], {})
    assert alone.vpc is None


def test_the_ends_have_each_tunnels_key_and_say_only_what_is_behind_them() -> None:
    files = vpn_daemons.connections(VPN)
    assert re.findall(r'secret = "(.*)"', files) == [one.key for one in VPN.tunnels]
    assert files.count("id = 198.18.1.2\n") == 2
    assert "first.key" not in "".join(vpn_daemons.start_arguments(VPN)), "arguments can be seen by everybody"
    static, speaking = vpn_daemons.routing(VPN), vpn_daemons.routing(replace(VPN, static=False))
    assert "route 10.1.0.0/24 via" in static
    assert "bgp" not in static
    assert "neighbor 169.254.20.2 as 65000;" in speaking
    assert "route 10.2.0.0/24 unreachable;" in speaking
    assert "10.1.0.0/24" not in speaking, "it has to be learned"
    assert "unreachable" not in vpn_daemons.routing(replace(VPN, static=False, vpc=None))


SECTION: dict[str, Any] = {
    "sites": {"cloud": {"prefix": "198.51.100.0/24"}, "lab": {"prefix": "203.0.113.0/24"}},
    "aws": {"site": "cloud"},
    "hosts": {
        "vpn": {"site": "cloud", "stands_for": {"aws_vpn_connection": {"Name": "lab"}}},
        "app": {"stands_for": {"aws_instance": {"Name": "app"}}},
    },
}
WORLD = Rehearsal.model_validate(SECTION)
OURS = replace(
    VPN,
    tags={"Name": "lab"},
    vpc=IPv4Network("10.30.0.0/16"),
    tunnels=(
        replace(VPN.tunnels[0], outside=IPv4Address("198.51.100.129")),
        replace(VPN.tunnels[1], outside=IPv4Address("198.51.100.130")),
    ),
)
SUBNET = Subnet("s-1", IPv4Network("10.30.1.0/24"), IPv4Network("10.30.0.0/16"), follows=(VPN.gateway,))
STATE = CloudState(
    (Instance("i-1", {"Name": "app"}, "s-1", IPv4Address("10.30.1.4")),),
    {"s-1": SUBNET, "s-2": Subnet("s-2", IPv4Network("10.30.2.0/24"), IPv4Network("10.30.0.0/16"))},
    (OURS,),
)


def made(state: CloudState) -> set[tuple[str, str]]:
    return {(one.namespace, one.make) for one in settings(state, WORLD, topology.lay_out(WORLD))}


def test_the_stand_in_has_both_outside_addresses_and_is_in_the_vpc_without_one_of_its_own() -> None:
    asked = made(STATE)
    for address in ("198.51.100.129", "198.51.100.130"):
        assert ("vpn", f"addr add {address}/32 dev eth0") in asked
        assert ("router", f"route replace {address}/32 dev s-cloud") in asked
    assert ("vpn", "addr add 10.30.1.3/24 dev eth1") in asked, "an address that AWS keeps for itself"
    assert ("vpn", "route replace 10.30.0.0/16 via 10.30.1.1 dev eth1") in asked
    assert ("vpn", "rule add priority 211 iif eth1 unreachable") in asked, "what it knows no way to goes nowhere"
    assert topology.lay_out(WORLD).forwarding == ("router", "aws", "vpn")


def test_a_route_table_sends_to_the_vpn_what_it_names_or_follows_and_no_other_one_does() -> None:
    ways = {make for where, make in made(STATE) if where == "aws" and "10.30.1.3" in make}
    assert ways == {"route replace 10.1.0.0/24 via 10.30.1.3 dev vpc onlink table 8681"}
    speaking = replace(STATE, vpns=(replace(OURS, static=False),))
    assert ("aws", "route replace 0.0.0.0/0 via 10.30.1.3 dev vpc onlink table 8681") in made(speaking)
    named = replace(SUBNET, follows=(), routes=(CloudRoute(IPv4Network("10.9.0.0/16"), VPN.gateway),))
    asked = made(replace(STATE, subnets={"s-1": named}))
    assert ("aws", "route replace 10.9.0.0/16 via 10.30.1.3 dev vpc onlink table 8681") in asked
    gone = made(replace(STATE, subnets={"s-1": named}, vpns=()))
    assert ("aws", "route replace blackhole 10.9.0.0/16 table 8681") in gone


def test_from_outside_only_the_customer_gateway_gets_at_the_tunnels() -> None:
    rules = edge_filter(STATE)
    accept = "ip saddr 198.18.1.2 ip daddr 198.51.100.130 udp dport { 500, 4500 } accept"
    assert rules.index(accept) < rules.index("ip daddr 198.51.100.130 drop")


def test_tags_decide_which_connection_a_host_stands_for_and_it_is_told() -> None:
    assert ends_of(STATE, WORLD) == {"vpn": OURS}
    assert ends_of(replace(STATE, vpns=(replace(OURS, tags={}),)), WORLD) == {}
    assert list(moves(CloudState(), STATE, WORLD)) == [
        f"vpn stands for {VPN.id} with 198.51.100.129, 198.51.100.130",
        "app stands for i-1 with 10.30.1.4",
    ]
    assert list(moves(STATE, replace(STATE, vpns=()), WORLD)) == [f"vpn no longer stands for {VPN.id}"]
    assert list(moves(STATE, STATE, WORLD)) == []


@pytest.mark.parametrize(
    ("host", "fault"),
    [
        ({"site": "lab"}, "its `site` is that of `aws`"),
        ({"site": "cloud", "address": "198.51.100.9"}, "from the cloud alone"),
        ({"site": "cloud", "lans": {"x": "10.0.0.1/24"}}, "from the cloud alone"),
        ({"site": "cloud", "stands_for": {"aws_vpn_connection": {"a": "b"}, "aws_instance": {"a": "b"}}}, "one thing"),
        ({"site": "cloud", "stands_for": {}}, "one thing"),
    ],
)
def test_a_stand_in_that_cannot_be_a_connection_is_refused(host: dict[str, Any], fault: str) -> None:
    given = {"stands_for": {"aws_vpn_connection": {"Name": "lab"}}, **host}
    with pytest.raises(ValueError, match=fault):
        Rehearsal.model_validate({**SECTION, "hosts": {"vpn": given}})
