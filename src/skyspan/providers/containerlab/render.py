"""The topology that reaches the host: the user's own, with images and defaults put in as the settings say, and its
management network where the user gave none; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from skyspan.model.error import SpecError
from skyspan.providers.containerlab.reading import Read, child, get, node_of, put, read, text_node, write
from skyspan.providers.containerlab.topology import Topology
from skyspan.providers.lab.topology import Management

DEFAULT_IPV4, DEFAULT_IPV6 = "172.20.20.0/24", "3fff:172:20:20::/64"
"""containerlab's own management subnets, which nodes with an address of their own are in when none is given."""


def overridden(topology: Read, name: str | None, images: Mapping[str, str], defaults: Mapping[str, Any]) -> Read:
    """`topology` with another lab name, other images and other defaults; itself when there is nothing to put in.

    Raises SpecError for an image that no node has.
    """
    root = topology.root
    if name:
        put(root, "name", text_node(name))
    if defaults:
        section = child(root, "topology", "defaults")
        for key, value in defaults.items():
            put(section, key, node_of(value))
    if images:
        _replace_images(root, images)
    if not (name or images or defaults):
        return topology
    # The positions of what the user wrote are kept, so that findings name his file's lines.
    again = read(write(root), topology.file, {})
    return Read(topology.file, topology.text, again.root, again.values, topology.marks, topology.doubled)


def with_management(topology: Read, management: Management) -> str:
    """The text for the host, with that management network where the topology says nothing else."""
    section = child(topology.root, "mgmt")
    for key, value in (
        ("network", management.network),
        ("bridge", management.bridge),
        ("ipv4-subnet", management.ipv4),
        ("ipv6-subnet", management.ipv6),
    ):
        if value and get(section, key) is None and get(section, key.replace("-", "_")) is None:
            put(section, key, text_node(value))
    return write(topology.root)


def wanted_management(topology: Topology) -> Management | None:
    """The management network that the user asks for; None when it is to be chosen.

    Empty parts are to be chosen too, but for the bridge of a network that the user names.
    """
    given = topology.management
    fixed = [address for node in topology.nodes for address in node.fixed]
    ipv4, ipv6 = str(given.get("ipv4-subnet") or ""), str(given.get("ipv6-subnet") or "")
    if fixed and not (ipv4 or ipv6):
        ipv4 = DEFAULT_IPV4 if any("." in address for address in fixed) else ""
        ipv6 = DEFAULT_IPV6 if any(":" in address for address in fixed) else ""
    network, bridge = str(given.get("network") or ""), str(given.get("bridge") or "")
    return Management(network, bridge, ipv4, ipv6) if network or bridge or ipv4 or ipv6 else None


def _replace_images(root: yaml.MappingNode, images: Mapping[str, str]) -> None:
    unused = set(images)
    section = child(root, "topology")
    places = [child(section, "defaults")] if isinstance(get(section, "defaults"), yaml.MappingNode) else []
    for part in ("nodes", "kinds", "groups"):
        entries = get(section, part)
        if isinstance(entries, yaml.MappingNode):
            places += [value for _, value in entries.value if isinstance(value, yaml.MappingNode)]
    for place in places:
        image = get(place, "image")
        if isinstance(image, yaml.ScalarNode) and image.value in images:
            unused.discard(image.value)
            put(place, "image", text_node(images[image.value]))
    if unused:
        raise SpecError(
            f"`images` names {', '.join(sorted(unused))}, which the topology does not use",
            hint="write it just as the topology does, with its tag",
        )
