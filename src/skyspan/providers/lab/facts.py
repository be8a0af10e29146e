"""A network lab as values, and the outputs that every lab stage gives of it; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_interface
from typing import Any

from skyspan.contracts.host import Host
from skyspan.providers.lab.consoles import consoles
from skyspan.providers.lab.drawing import dot, mermaid, svg
from skyspan.providers.lab.topology import LabInterface, LabLink, LabNode, Management

__all__ = ["Lab", "LabInterface", "LabLink", "LabNode", "Management", "outputs"]


@dataclass(frozen=True, slots=True)
class Lab:
    """A lab as it is: its nodes and links in the order of its topology, and its management network if it has one."""

    name: str
    nodes: tuple[LabNode, ...]
    links: tuple[LabLink, ...] = ()
    management: Management | None = None

    def node(self, name: str) -> LabNode | None:
        """The node of that name."""
        return next((node for node in self.nodes if node.name == name), None)


def outputs(lab: Lab, host: Host | None) -> dict[str, Any]:
    """The outputs of a lab on `host` (None: this machine), as JSON.

    `nodes` by name; `endpoints` by node and interface; `links` in order; `prefixes` that nodes are connected to beside
    the management network; `consoles` by node; `management`; `graph` as Mermaid, DOT and SVG.
    """
    return {
        "name": lab.name,
        "nodes": {node.name: _node(node) for node in lab.nodes},
        "endpoints": _endpoints(lab),
        "links": [_link(link) for link in lab.links],
        "prefixes": _prefixes(lab),
        "consoles": {node.name: consoles(node, host) for node in lab.nodes},
        "management": _management(lab.management),
        "graph": {
            "mermaid": mermaid(lab.name, lab.nodes, lab.links),
            "dot": dot(lab.name, lab.nodes, lab.links),
            "svg": svg(lab.name, lab.nodes, lab.links),
        },
    }


def _node(node: LabNode) -> dict[str, Any]:
    return {
        "name": node.name,
        "kind": node.kind,
        "image": node.image,
        "container": node.container,
        "ipv4": node.ipv4,
        "ipv6": node.ipv6,
        "state": node.state,
        "started_at": node.started_at,
    }


def _link(link: LabLink) -> dict[str, Any]:
    return {"type": link.kind, "ends": [{"node": node, "interface": interface} for node, interface in link.ends]}


def _endpoints(lab: Lab) -> dict[str, Any]:
    """By node and interface: what is at the other end of the link, and what the interface itself was seen with."""
    found: dict[str, dict[str, Any]] = {node.name: {} for node in lab.nodes}
    for link in lab.links:
        for name, interface in link.ends:
            others = [end for end in link.ends if end != (name, interface)]
            peer = {"node": others[0][0], "interface": others[0][1]} if len(others) == 1 else None
            if name in found:
                found[name][interface] = {"peer": peer, "up": False, "mac": "", "addresses": []}
    for node in lab.nodes:
        for seen in node.interfaces:
            entry = found[node.name].setdefault(seen.name, {"peer": None})
            entry.update({"up": seen.up, "mac": seen.mac, "addresses": list(seen.addresses)})
    return found


def _prefixes(lab: Lab) -> list[str]:
    """Networks of all addresses that were seen in nodes, the management network's and loopback's own left out."""
    managed = {address for node in lab.nodes for address in (node.ipv4, node.ipv6) if address}
    networks = {
        address.network
        for node in lab.nodes
        for seen in node.interfaces
        for address in map(ip_interface, seen.addresses)
        if str(address.ip) not in managed and not (address.ip.is_loopback or address.ip.is_link_local)
    }
    return [str(network) for network in sorted(networks, key=lambda net: (net.version, int(net[0]), net.prefixlen))]


def _management(network: Management | None) -> Mapping[str, Any] | None:
    if network is None:
        return None
    return {"network": network.network, "bridge": network.bridge, "ipv4": network.ipv4, "ipv6": network.ipv6}
