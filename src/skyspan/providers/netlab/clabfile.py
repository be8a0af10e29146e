"""What is changed in the containerlab topology that netlab made, and what is read from it: pure, text to text.

netlab has no setting for a node's privileges and none for stub links (netlab's term: links of one node) without dummy
interfaces, so that these are set between `netlab create` and `netlab up --snapshot`, which takes the file as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml

from skyspan.model.error import ToolFailedError
from skyspan.providers.netlab.named import LOADER
from skyspan.providers.netlab.spec import NetlabSpec

_WRITABLE_SETTINGS = "sh -c 'mount -o remount,rw /proc/sys || true'"
"""A container that is not privileged sees the kernel's settings of its own network read-only; netlab's scripts set
some, and end where they cannot. Where an image has no `mount`, its own start has to do the same."""


def adapted(text: str, spec: NetlabSpec, number: int, devices: Mapping[str, str]) -> str:
    """The file as this host can deploy it: with the images of `spec`, and with what `restricted` means. `devices` is
    the device by node."""
    file = _read(text)
    topology = file["topology"]
    for name, node in topology["nodes"].items():
        image = node.get("image")
        if image is not None:
            chosen = spec.images.get(name) or spec.images.get(image) or spec.images.get(devices.get(name, ""))
            node["image"] = chosen or image
    if spec.restricted:
        topology["defaults"] = {
            **(topology.get("defaults") or {}),
            "privileged": False,
            "cap-add": list(spec.capabilities),
        }
        for node in topology["nodes"].values():
            if node.get("kind") == "linux":
                node["exec"] = [_WRITABLE_SETTINGS, *(node.get("exec") or [])]
        links = topology.get("links") or []
        for index, link in enumerate(links):
            if link.get("type") == "dummy":
                # The other end stays in the host: it goes with its container, and nothing is attached to it.
                links[index] = {"type": "host", "endpoint": link["endpoint"], "host-interface": stub(number, index)}
    return yaml.safe_dump(file, sort_keys=False, width=200)


def stub(number: int, link: int) -> str:
    """The host's end of a stub link."""
    return f"sks{number}l{link}"


def pieces(text: str) -> dict[str, str]:
    """By node, everything that containerlab is told of it, as one text: what differs is deployed anew. The links are
    under an empty name."""
    topology = _read(text)["topology"]
    found = {name: json.dumps(node, sort_keys=True) for name, node in topology["nodes"].items()}
    found[""] = json.dumps([topology.get("links") or [], topology.get("defaults") or {}], sort_keys=True)
    return found


def bridges(text: str) -> tuple[str, ...]:
    """The bridges of the host that links of more than two nodes end at."""
    nodes: Mapping[str, Mapping[str, Any]] = _read(text)["topology"]["nodes"]
    return tuple(name for name, node in nodes.items() if node.get("kind") in ("bridge", "ovs-bridge"))


def host_ends(text: str) -> dict[str, str]:
    """By interface of the host that a link ends at (in a bridge, or as a stub), the node at the other end."""
    topology = _read(text)["topology"]
    joints = set(bridges(text))
    found: dict[str, str] = {}
    for link in topology.get("links") or []:
        if link.get("type") == "host":
            found[link["host-interface"]] = link["endpoint"]["node"]
        ends = [tuple(end.split(":", 1)) for end in link.get("endpoints") or () if isinstance(end, str)]
        for node, interface in ends:
            if node in joints:
                found[interface] = next((other for other, _ in ends if other not in joints), "")
    return found


def _read(text: str) -> dict[str, Any]:
    try:
        file = yaml.load(text, Loader=LOADER)
        topology = file["topology"]
        if not isinstance(topology.get("nodes"), dict):
            raise TypeError("it has no nodes")
    except (yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        raise ToolFailedError(
            "netlab made a containerlab topology that cannot be read",
            detail=str(error),
            hint="a template of its own (`defaults.paths`) in the topology, perhaps?",
        ) from error
    return dict(file)


def images(text: str) -> dict[str, str]:
    """The image that each node runs."""
    nodes: Mapping[str, Mapping[str, Any]] = _read(text)["topology"]["nodes"]
    return {name: str(node["image"]) for name, node in nodes.items() if node.get("image")}
