"""A lab as text."""

from __future__ import annotations

import click

from skyspan.cli.views.lab import is_lab, lab_lines


def link(*ends: str) -> dict[str, object]:
    return {"type": "veth", "ends": [dict(zip(("node", "interface"), end.split(":"), strict=True)) for end in ends]}


LAB = {
    "nodes": {"r1": {"ipv4": "10.0.0.1", "image": "frr:8"}, "core": {"ipv4": "", "image": "frr:8"}},
    "links": [link("r1:eth1", "macvlan:eth0"), link("r1:eth2", "core:eth1")],
    "consoles": {},
}


def test_a_lab_is_told_from_other_stages_by_what_it_says() -> None:
    assert is_lab(LAB)
    assert not is_lab({"nodes": ["a"], "links": [], "consoles": {}})
    assert not is_lab({"interface": "wg0"})


def test_each_link_stands_once_with_its_first_node() -> None:
    assert [click.unstyle(line) for line in lab_lines(LAB)] == [
        "r1    10.0.0.1  frr:8",
        "      ├─ eth1 ── macvlan:eth0",
        "      └─ eth2 ── core:eth1",
        "core  frr:8",
    ]


def test_a_lab_without_nodes_is_nothing_to_draw() -> None:
    assert list(lab_lines({"nodes": {}, "links": [], "consoles": {}})) == []
