from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from skyspan.rehearsal.cloud.networks import edge_filter, settings
from skyspan.rehearsal.cloud.state import CloudRoute, CloudState, Instance, Permit, Subnet, standing_in
from skyspan.rehearsal.spec import Rehearsal
from skyspan.rehearsal.underlay import topology

WORLD = Rehearsal.model_validate(
    {
        "sites": {"cloud": {"prefix": "198.51.100.0/24"}},
        "aws": {"site": "cloud"},
        "hosts": {
            "gw": {"site": "cloud", "stands_for": {"aws_instance": {"Name": "gw"}}},
            "app": {"stands_for": {"aws_instance": {"Name": "app"}}},
        },
    }
)
VPC = IPv4Network("10.20.0.0/16")
GATEWAY = Instance(
    "i-1", {"Name": "gw", "Team": "x"}, "s-1", IPv4Address("10.20.1.4"), IPv4Address("198.51.100.129"), forwards=True
)
APP = Instance("i-2", {"Name": "app"}, "s-2", IPv4Address("10.20.2.4"))
LAB = CloudRoute(IPv4Network("192.168.77.0/24"), "i-1")
STATE = CloudState(
    (GATEWAY, APP),
    {
        "s-1": Subnet("s-1", IPv4Network("10.20.1.0/24"), VPC),
        "s-2": Subnet("s-2", IPv4Network("10.20.2.0/24"), VPC, (LAB,)),
    },
)


def made(state: CloudState) -> set[tuple[str, str]]:
    return {(one.namespace, one.make) for one in settings(state, WORLD, topology.lay_out(WORLD))}


def test_nothing_is_asked_for_by_an_empty_account() -> None:
    assert made(CloudState()) == set()


def test_an_elastic_ip_is_given_to_the_host_and_routed_there() -> None:
    asked = made(STATE)
    assert ("gw", "addr add 198.51.100.129/32 dev eth0") in asked
    assert ("router", "route replace 198.51.100.129/32 dev s-cloud") in asked
    assert ("gw", "route replace default via 198.51.100.1 dev eth0 onlink src 198.51.100.129") in asked


def test_a_private_host_goes_out_through_its_subnets_router() -> None:
    asked = made(STATE)
    assert ("app", "addr add 10.20.2.4/24 dev eth1") in asked
    assert ("app", "route replace default via 10.20.2.1 dev eth1") in asked


def test_a_route_table_decides_for_its_own_subnet_only() -> None:
    ways = [make for where, make in made(STATE) if where == "aws" and "192.168.77.0/24" in make]
    assert ways == ["route replace 192.168.77.0/24 via 10.20.1.4 dev vpc onlink table 6122"]


def test_an_instance_that_checks_source_and_destination_is_a_black_hole() -> None:
    state = replace(STATE, instances=(replace(GATEWAY, forwards=False), APP))
    assert ("aws", "route replace blackhole 192.168.77.0/24 table 6122") in made(state)


def test_what_an_ended_instance_had_is_taken_away() -> None:
    gone = settings(STATE, WORLD, topology.lay_out(WORLD)) - settings(CloudState(), WORLD, topology.lay_out(WORLD))
    assert "addr del 198.51.100.129/32 dev eth0" in {one.undo for one in gone}


def test_tags_decide_which_instance_a_host_stands_for() -> None:
    assert {name: one.id for name, one in standing_in(STATE, WORLD).items()} == {"gw": "i-1", "app": "i-2"}
    assert standing_in(CloudState((replace(APP, tags={"Name": "other"}),)), WORLD) == {}


def test_from_outside_an_elastic_ip_admits_what_its_groups_admit_and_drops_the_rest() -> None:
    ssh = Permit("tcp", 22, 22, IPv4Network("198.18.0.0/30"))
    rules = edge_filter(replace(STATE, instances=(replace(GATEWAY, permits=(ssh,)), APP)))
    accept = "ip saddr 198.18.0.0/30 ip daddr 198.51.100.129 tcp dport 22-22 accept"
    drop = "ip daddr 198.51.100.129 drop"
    assert rules.index(accept) < rules.index(drop)
    assert "10.20.2.4" not in rules
