"""The parts of a lab: nodes with what was seen of them, links between their interfaces, the management network."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LabInterface:
    """An interface as it was seen in a node. `addresses` carry their prefix length; those of the link alone are left
    out."""

    name: str
    up: bool = True
    mac: str = ""
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LabNode:
    """A node of a lab.

    `container` is its container's name, empty for a node without one (a bridge, a device of metal). `state` is
    Docker's word (`running`, `exited`, `created` …), `absent` for a container that is not there, or the lab tool's.
    `ipv4` and `ipv6` are its management addresses without a length; empty when it has none. `interfaces` are what was
    seen in it, the loopback too. `user` is who logs in over SSH, where that is not what is usual for the kind.
    """

    name: str
    kind: str
    image: str = ""
    container: str = ""
    ipv4: str = ""
    ipv6: str = ""
    state: str = ""
    started_at: str = ""
    interfaces: tuple[LabInterface, ...] = ()
    user: str = ""


@dataclass(frozen=True, slots=True)
class LabLink:
    """A link: (node, interface) of each end. `kind` is `veth` for a wire between two nodes; other ends may be what is
    no node of the lab (`host`, `mgmt-net`)."""

    ends: tuple[tuple[str, str], ...]
    kind: str = "veth"


@dataclass(frozen=True, slots=True)
class Management:
    """A lab's management network: Docker's name for it, the bridge on the host, and its subnets (empty: none)."""

    network: str
    bridge: str = ""
    ipv4: str = ""
    ipv6: str = ""
