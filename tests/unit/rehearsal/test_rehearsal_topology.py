from __future__ import annotations

from skyspan.rehearsal.spec import Rehearsal
from skyspan.rehearsal.underlay import topology

LAB = Rehearsal.model_validate(
    {
        "sites": {"cloud": {"prefix": "198.51.100.0/24"}, "lab": {"prefix": "203.0.113.0/24"}},
        "aws": {"site": "cloud"},
        "hosts": {
            "cloud-gw": {"site": "cloud", "stands_for": {"aws_instance": {"Name": "cloud-gw"}}},
            "lab-gw": {"site": "lab", "address": "203.0.113.10", "lans": {"lab": "192.168.77.1/24"}, "forwards": True},
            "lab-svc": {"lans": {"lab": "192.168.77.10/24"}, "routes": [{"to": "0.0.0.0/0", "via": "192.168.77.1"}]},
        },
    }
)


def test_every_site_is_a_bridge_of_the_router_with_the_first_address() -> None:
    made = topology.batch(topology.lay_out(LAB))[topology.ROUTER]
    assert "addr add 203.0.113.1/24 dev s-lab" in made
    assert "addr add 198.51.100.1/24 dev s-cloud" in made


def test_hosts_of_a_lan_are_plugged_into_one_bridge() -> None:
    ports = [port for port in topology.lay_out(LAB).ports if port.bridge == "lan0"]
    assert [port.namespace for port in ports] == ["lab-gw", "lab-svc"]


def test_the_control_namespace_knows_the_sites_and_has_no_default_route() -> None:
    routes = [route for route in topology.lay_out(LAB).routes if route.namespace == topology.CONTROL]
    assert {str(route.to) for route in routes} == {"198.51.100.0/24", "203.0.113.0/24"}


def test_a_host_with_an_address_reaches_the_world_through_its_router() -> None:
    settled = topology.settle(topology.lay_out(LAB), topology.router_control_address(LAB))
    assert "route add 0.0.0.0/0 via 203.0.113.1\n" in settled["lab-gw"]
    assert "route add 0.0.0.0/0 via 192.168.77.1\n" in settled["lab-svc"]


def test_a_host_that_stands_for_an_instance_has_an_interface_in_the_cloud_but_no_address_yet() -> None:
    laid_out = topology.lay_out(LAB)
    assert laid_out.interface("cloud-gw", topology.AWS_LAN) == "eth1"
    assert "addr add" not in topology.batch(laid_out)["cloud-gw"]


def test_only_what_is_told_to_forward_forwards() -> None:
    assert topology.lay_out(LAB).forwarding == (topology.ROUTER, topology.AWS_ROUTER, "lab-gw")


def test_no_interface_name_is_longer_than_the_kernel_takes() -> None:
    laid_out = topology.lay_out(LAB)
    names = [bridge.name for bridge in laid_out.bridges]
    names += [name for port in laid_out.ports for name in (port.interface, port.far_interface)]
    assert max(map(len, names)) <= 15


def test_far_ends_have_names_of_their_own_in_each_namespace() -> None:
    ends = [(port.far, port.far_interface) for port in topology.lay_out(LAB).ports]
    assert len(set(ends)) == len(ends)


def test_the_cables_of_one_machine_are_its_own_and_no_others() -> None:
    own = topology.lay_out(LAB).only("lab-gw")
    assert {port.namespace for port in own.ports} == {"lab-gw"}
    assert own.forwarding == ("lab-gw",)
    made = topology.batch(own)
    assert "addr add 203.0.113.10/24 dev eth0" in made["lab-gw"]
    assert "route add 0.0.0.0/0 via 203.0.113.1" in topology.settle(own, topology.router_control_address(LAB))["lab-gw"]


def test_a_machine_on_a_site_asks_its_router_for_names_and_another_nobody() -> None:
    assert str(topology.name_server(LAB, "lab-gw")) == "203.0.113.1"
    assert topology.name_server(LAB, "lab-svc") is None
