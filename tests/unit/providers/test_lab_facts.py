"""What a lab says of itself: outputs, consoles and pictures."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET

import pytest

from skyspan.contracts.host import Host
from skyspan.providers.lab.consoles import consoles
from skyspan.providers.lab.drawing import dot, mermaid, svg
from skyspan.providers.lab.facts import Lab, LabInterface, LabLink, LabNode, Management, outputs

R1 = LabNode(
    "r1",
    "linux",
    "skyspan/node:1",
    "clab-two-r1",
    "10.253.7.2",
    state="running",
    interfaces=(
        LabInterface("lo", addresses=("192.0.2.1/32",)),
        LabInterface("eth0", addresses=("10.253.7.2/24",)),
        LabInterface("eth1", mac="aa:c1:ab:00:00:01", addresses=("10.1.0.1/30", "2001:db8::1/64")),
    ),
)
R2 = LabNode("r2", "linux", "skyspan/node:1", "clab-two-r2", "10.253.7.3", state="exited")
LAB = Lab(
    "two",
    (R1, R2),
    (LabLink((("r1", "eth1"), ("r2", "eth1"))), LabLink((("r2", "eth2"), ("host", "two-r2")), "host")),
    Management("sky-lab-1", "skl-1", "10.253.7.0/24"),
)


def test_outputs_are_json_and_name_each_node_endpoint_and_link() -> None:
    found = outputs(LAB, None)
    assert json.loads(json.dumps(found)) == found
    assert list(found["nodes"]) == ["r1", "r2"]
    assert found["nodes"]["r1"]["ipv4"] == "10.253.7.2"
    assert found["endpoints"]["r1"]["eth1"] == {
        "peer": {"node": "r2", "interface": "eth1"},
        "up": True,
        "mac": "aa:c1:ab:00:00:01",
        "addresses": ["10.1.0.1/30", "2001:db8::1/64"],
    }
    assert found["endpoints"]["r2"]["eth1"]["up"] is False, "what was not seen is not up"
    assert found["endpoints"]["r2"]["eth2"]["peer"] == {"node": "host", "interface": "two-r2"}
    assert found["links"][1]["type"] == "host"


def test_prefixes_are_the_networks_that_nodes_were_seen_in_without_the_management_network() -> None:
    assert outputs(LAB, None)["prefixes"] == ["10.1.0.0/30", "192.0.2.1/32", "2001:db8::/64"]


def test_consoles_on_this_machine_need_no_jump() -> None:
    assert consoles(R1, None) == {"exec": "docker exec -it clab-two-r1 sh", "ssh": "ssh root@10.253.7.2"}


def test_consoles_of_a_lab_elsewhere_go_through_its_host() -> None:
    host = Host("lab-gw", "203.0.113.10", port=2222, user="admin")
    assert consoles(R1, host) == {
        "exec": "ssh -t -p 2222 admin@203.0.113.10 'docker exec -it clab-two-r1 sh'",
        "ssh": "ssh -J admin@203.0.113.10:2222 root@10.253.7.2",
    }


def test_a_jump_with_a_key_of_its_own_names_the_key() -> None:
    host = Host("lab-gw", "203.0.113.10", key_file="/k")
    command = consoles(R1, host)["ssh"]
    assert command == "ssh -o 'ProxyCommand=ssh -i /k root@203.0.113.10 -W '\"'\"'[%h]:%p'\"'\"'' root@10.253.7.2"


@pytest.mark.parametrize(
    ("kind", "inside", "user"), [("nokia_srlinux", "sr_cli", "admin"), ("arista_ceos", "Cli", "admin")]
)
def test_consoles_speak_the_command_line_of_the_kind(kind: str, inside: str, user: str) -> None:
    found = consoles(LabNode("a", kind, container="c", ipv4="192.0.2.7"), None)
    assert found == {"exec": f"docker exec -it c {inside}", "ssh": f"ssh {user}@192.0.2.7"}


def test_a_virtual_machine_has_a_serial_console() -> None:
    assert consoles(LabNode("a", "cisco_xrv9k", ipv4="192.0.2.7"), None)["telnet"] == "telnet 192.0.2.7 5000"


def test_a_bridge_has_no_console() -> None:
    assert consoles(LabNode("br", "bridge"), None) == {}


def test_mermaid_draws_each_link_once_and_marks_what_does_not_run() -> None:
    text = mermaid("two", LAB.nodes, LAB.links)
    assert text.count("---|") == 2
    assert 'n0 ---|"eth1 — eth1"| n1' in text
    assert "class n1 troubled" in text


def test_names_cannot_break_out_of_a_picture() -> None:
    odd = (LabNode('a"]; x', "linux"), LabNode("<b>&", "linux"))
    links = (LabLink((('a"]; x', "eth1"), ("<b>&", "eth1"))),)
    assert '"]; x' not in mermaid("x", odd, links)
    assert '"a\\"]; x"' in dot("x", odd, links)
    assert len(ET.fromstring(svg("x", odd, links))) > 2


def test_svg_draws_forty_nodes_apart_from_each_other_and_parallel_links_apart() -> None:
    nodes = tuple(LabNode(f"n{i}", "linux", state="running") for i in range(40))
    links = tuple(LabLink(((f"n{i}", "eth1"), (f"n{(i + 1) % 40}", "eth2"))) for i in range(40))
    text = svg("ring", nodes, (*links, links[0]))
    places = [(float(x), float(y)) for x, y in re.findall(r'<rect x="([\d.]+)" y="([\d.]+)"', text)]
    assert len(places) == 40
    apart = [abs(x1 - x2) >= 112 or abs(y1 - y2) >= 40 for i, (x1, y1) in enumerate(places) for x2, y2 in places[:i]]
    assert all(apart)
    assert len(set(re.findall(r'<path d="([^"]+)"', text))) == 41
    assert text == svg("ring", nodes, (*links, links[0])), "the same for the same lab"
