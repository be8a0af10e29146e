"""The facts of a lab out of what `netlab inspect --format json` says: nodes, links, addresses, routing; pure.

The data model is netlab's "transformed topology"; what it may lack is looked for tolerantly, as it grows every month.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_interface, ip_network
from typing import Any

from skyspan.model.error import ToolFailedError
from skyspan.providers.lab.facts import Lab, LabInterface, LabLink, LabNode, Management

_KEPT = ("name", "provider", "nodes", "links", "addressing", "validate")
_PROTOCOLS = ("bgp", "ospf", "isis", "eigrp", "ripv2")


@dataclass(frozen=True, slots=True)
class Facts:
    """A lab as netlab made it out of its topology. `data` is JSON, and may be kept."""

    data: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The lab's name, part of its containers' names."""
        return str(self.data["name"])

    @property
    def provider(self) -> str:
        """The primary provider: `clab`, `external`, `libvirt`."""
        return str(self.data["provider"])

    @property
    def nodes(self) -> Mapping[str, Mapping[str, Any]]:
        """The nodes by name, those left out that nobody manages."""
        nodes: Mapping[str, Mapping[str, Any]] = self.data["nodes"]
        return {name: node for name, node in nodes.items() if not node.get("unmanaged")}

    @property
    def links(self) -> Sequence[Mapping[str, Any]]:
        """The links in the order of the topology; virtual ones (VLAN members, loopbacks, tunnels) have no wire."""
        wires: Sequence[Mapping[str, Any]] = self.data.get("links") or []
        return [link for link in wires if link.get("type") in ("p2p", "lan", "stub")]

    @property
    def tests(self) -> Sequence[Mapping[str, Any]]:
        """The topology's validation tests."""
        tests: Sequence[Mapping[str, Any]] = self.data.get("validate") or []
        return tests

    def containers(self) -> dict[str, str]:
        """The container of each node that is one."""
        return {
            name: str(node.get("hostname", ""))
            for name, node in self.nodes.items()
            if (node.get("provider") or self.provider) == "clab" and node.get("hostname")
        }

    def wires(self) -> list[LabLink]:
        """The links as ends."""
        return [_wire(link) for link in self.links]

    def bridges(self) -> tuple[str, ...]:
        """The bridges that netlab makes on the host, for links of more than two nodes; those that people made and the
        topology names (`clab.external_bridge`) are not among them."""
        found = (
            str(link["bridge"])
            for link in self.links
            if link.get("bridge")
            and int(link.get("node_count") or 0) > 2
            and "external_bridge" not in (link.get("clab") or {})
        )
        return tuple(dict.fromkeys(found))

    def interface(self, node: str, name: str) -> Mapping[str, Any]:
        """What netlab says of a node's interface; nothing of one that it does not know."""
        items = self.nodes[node].get("interfaces") or ()
        return next((item for item in items if _interface_name(item) == name), {})

    def peers(self, node: str) -> tuple[str, ...]:
        """Nodes at the other end of a wire of `node`: their end goes and comes with that node's. A link over a bridge
        keeps the others' ends, and one to a node that nobody manages has none."""
        found = []
        for link in self.wires():
            names = [name for name, _ in link.ends]
            if len(names) == 2 and node in names:
                found += [name for name in names if name != node and name in self.nodes]
        return tuple(dict.fromkeys(found))


def parse_facts(text: str) -> Facts:
    """What `netlab inspect --format json .` printed; raises ToolFailedError for what it cannot have."""
    try:
        data = json.loads(text)
        facts = Facts({key: data[key] for key in _KEPT if key in data})
        for node in facts.nodes.values():
            _ = node["device"], list(node.get("interfaces") or [])
        _ = facts.name, facts.provider, facts.wires()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ToolFailedError(
            "what `netlab inspect` says of the lab cannot be read",
            detail=f"{type(error).__name__}: {error}",
            hint="which netlab is it? The one of this writing is 26.10",
        ) from error
    return facts


def lab_of(facts: Facts, management: Management | None, seen: Mapping[str, Any], images: Mapping[str, str]) -> Lab:
    """The lab; `seen` is the container by node as Docker shows it, `images` what nodes run where that is not netlab's
    own choice."""
    containers = facts.containers()
    nodes = []
    for name, node in facts.nodes.items():
        container = seen.get(name)
        there = name in containers
        state = (container.state if container is not None else "absent") if there else "external"
        nodes.append(
            LabNode(
                name=name,
                kind=str(node["device"]),
                image=images.get(name, str(node.get("box", ""))) if there else "",
                container=containers.get(name, ""),
                ipv4=_bare(node.get("mgmt", {}).get("ipv4")),
                ipv6=_bare(node.get("mgmt", {}).get("ipv6")),
                state=state,
                started_at=container.started_at if container is not None else "",
                interfaces=tuple(_interfaces(node, container)),
            )
        )
    return Lab(facts.name, tuple(nodes), tuple(facts.wires()), management)


def routing_outputs(facts: Facts) -> dict[str, Any]:
    """What netlab adds to what every lab tells: `addressing`, `loopbacks`, `pools`, `routing`, `bgp`, `announced`."""
    announced = {name: announced_by(node) for name, node in facts.nodes.items()}
    everything = {ip_network(prefix) for prefixes in announced.values() for prefix in prefixes}
    return {
        "addressing": [item for name, node in facts.nodes.items() for item in _addresses(name, node)],
        "loopbacks": {
            name: {family: node["loopback"][family] for family in ("ipv4", "ipv6") if family in node["loopback"]}
            for name, node in facts.nodes.items()
            if isinstance(node.get("loopback"), Mapping)
        },
        "pools": _plain(facts.data.get("addressing") or {}),
        "routing": {name: _protocols(node) for name, node in facts.nodes.items()},
        "bgp": [item for name, node in facts.nodes.items() for item in _sessions(name, node)],
        "announced": [str(net) for net in sorted(everything, key=lambda net: (net.version, net))],
        "announced_by": {name: prefixes for name, prefixes in announced.items() if prefixes},
    }


def announced_by(node: Mapping[str, Any]) -> list[str]:
    """The prefixes that a node originates in BGP, in its default table and its VRFs."""
    found = []
    for bgp in _speakers(node):
        for item in bgp.get("advertise") or ():
            found += _both(item)
        found += [item for item in bgp.get("originate") or () if isinstance(item, str)]
    return [str(net) for net in dict.fromkeys(ip_interface(text).network for text in found)]


def _speakers(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for holder in (node, *(node.get("vrfs") or {}).values()):
        if isinstance(holder.get("bgp"), Mapping):
            yield holder["bgp"]


def _sessions(name: str, node: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    asn = (node.get("bgp") or {}).get("as")
    for bgp in _speakers(node):
        for neighbour in bgp.get("neighbors") or ():
            yield {
                "node": name,
                "as": bgp.get("as", asn),
                "neighbor": neighbour.get("name", ""),
                "neighbor_as": neighbour.get("as"),
                "type": neighbour.get("type", ""),
                "addresses": [
                    neighbour[family] for family in ("ipv4", "ipv6") if isinstance(neighbour.get(family), str)
                ],
            }


def _addresses(name: str, node: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    loopback = node.get("loopback")
    for item in (*((loopback,) if isinstance(loopback, Mapping) else ()), *(node.get("interfaces") or ())):
        addresses = _both(item)
        if addresses:
            yield {
                "node": name,
                "interface": item.get("ifname", ""),
                "addresses": addresses,
                "prefixes": [str(ip_interface(address).network) for address in addresses],
                "type": item.get("type", ""),
                "neighbors": [other.get("node", "") for other in item.get("neighbors") or ()],
            }


def _protocols(node: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"modules": list(node.get("module") or ())}
    for protocol in _PROTOCOLS:
        settings = node.get(protocol)
        if isinstance(settings, Mapping):
            found[protocol] = {key: settings[key] for key in ("as", "area", "router_id", "net") if key in settings}
    return found


def _interfaces(node: Mapping[str, Any], container: Any) -> Iterator[LabInterface]:
    for item in node.get("interfaces") or ():
        name = _interface_name(item)
        there = container.interface(name) if container is not None else None
        addresses = _both(item)
        yield LabInterface(
            name=name,
            up=there.up if there is not None else False,
            mac=there.mac if there is not None else "",
            addresses=tuple(addresses),
        )


def _wire(link: Mapping[str, Any]) -> LabLink:
    ends = tuple((str(end["node"]), _interface_name(end)) for end in link["interfaces"])
    return LabLink(ends, {"lan": "bridge", "stub": "stub"}.get(str(link["type"]), "veth") if len(ends) != 2 else "veth")


def _both(item: Mapping[str, Any]) -> list[str]:
    """The addresses of both families; what is unnumbered has `true` there."""
    return [item[family] for family in ("ipv4", "ipv6") if isinstance(item.get(family), str)]


def _interface_name(item: Mapping[str, Any]) -> str:
    """How the interface is called in its container."""
    return str((item.get("clab") or {}).get("name") or item.get("ifname", ""))


def _bare(address: object) -> str:
    return address.partition("/")[0] if isinstance(address, str) else ""


def _plain(pools: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {key: value for key, value in pool.items() if not key.startswith("_")}
        for name, pool in pools.items()
        if isinstance(pool, Mapping) and pool
    }
