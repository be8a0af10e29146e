"""Where everything in a world is attached: namespaces, links, addresses and routes (pure)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from skyspan.rehearsal.spec import Rehearsal, StandIn

CONTROL = "control"
ROUTER = "router"
SWITCH = "switch"
AWS_ROUTER = "aws"
"""Namespaces besides the stand-ins': where Skyspan runs, between the sites, the LANs' bridges, inside the cloud."""

AWS_LAN = "aws-vpc"
"""The LAN of all instances in private subnets; longer than a stand-in's LAN may be named, so it never clashes."""


@dataclass(frozen=True, slots=True)
class Port:
    """One end of a cable: an interface in a namespace, plugged into a bridge of another namespace, or nowhere."""

    namespace: str
    interface: str
    far: str
    bridge: str | None
    far_interface: str
    address: IPv4Interface | None = None

    @property
    def hardware_address(self) -> str:
        """Its MAC address: the same after a reboot, as that of a real machine's interface, or its neighbours would go
        on sending to the former one. Locally administered and unicast (IEEE 802, the lowest bits of the first byte)."""
        seed = f"{self.namespace} {self.interface}".encode()
        return ":".join(f"{byte:02x}" for byte in (2, *hashlib.blake2b(seed, digest_size=5).digest()))


@dataclass(frozen=True, slots=True)
class Bridge:
    """A network segment: a bridge device, with an address where its namespace takes part."""

    namespace: str
    name: str
    address: IPv4Interface | None = None


@dataclass(frozen=True, slots=True)
class NextHop:
    """A route of a namespace from the start."""

    namespace: str
    to: IPv4Network
    via: IPv4Address


@dataclass(frozen=True, slots=True)
class Topology:
    """All of it, in the order in which it is made."""

    machines: tuple[str, ...]
    helpers: tuple[str, ...]
    bridges: tuple[Bridge, ...]
    ports: tuple[Port, ...]
    routes: tuple[NextHop, ...]
    forwarding: tuple[str, ...]

    def interface(self, machine: str, bridge: str) -> str | None:
        """The machine's interface on a segment, or None."""
        return next((port.interface for port in self.ports if (port.namespace, port.bridge) == (machine, bridge)), None)

    def only(self, machine: str) -> Topology:
        """The part of it that is one machine's own: its cables and routes."""
        return Topology(
            (machine,),
            (),
            (),
            tuple(port for port in self.ports if port.namespace == machine),
            tuple(route for route in self.routes if route.namespace == machine),
            tuple(name for name in self.forwarding if name == machine),
        )


def site_bridge(site: str) -> str:
    """The router's bridge of a site."""
    return f"s-{site}"


def lay_out(rehearsal: Rehearsal) -> Topology:
    """The world that `rehearsal` describes."""
    control, router = (IPv4Interface(f"{host}/{rehearsal.control.prefixlen}") for host in _control_pair(rehearsal))
    lans = _lans(rehearsal)
    machines = tuple(rehearsal.hosts)
    helpers = (ROUTER, *((SWITCH,) if lans else ()), *((AWS_ROUTER,) if rehearsal.aws else ()))
    ports = [
        Port(CONTROL, "world", ROUTER, None, CONTROL, control),
        *_machine_ports(rehearsal, lans),
    ]
    if rehearsal.aws:
        ports.append(Port(AWS_ROUTER, "vpc", SWITCH, lans[AWS_LAN], "aws-router"))
    bridges = [
        *(
            Bridge(ROUTER, site_bridge(name), IPv4Interface(f"{_first(site.prefix)}/{site.prefix.prefixlen}"))
            for name, site in rehearsal.sites.items()
        ),
        *(Bridge(SWITCH, bridge) for bridge in lans.values()),
    ]
    forwarding = (
        ROUTER,
        *((AWS_ROUTER,) if rehearsal.aws else ()),
        *(name for name, host in rehearsal.hosts.items() if host.forwards or host.vpn_tags is not None),
    )
    return Topology(machines, helpers, tuple(bridges), tuple(ports), tuple(_routes(rehearsal, router)), forwarding)


def router_control_address(rehearsal: Rehearsal) -> IPv4Interface:
    """The router's address towards the control namespace."""
    return IPv4Interface(f"{_control_pair(rehearsal)[1]}/{rehearsal.control.prefixlen}")


def address_of(rehearsal: Rehearsal, machine: str) -> IPv4Address | None:
    """A stand-in's address from the start: on its site, else on its first LAN."""
    host = rehearsal.hosts[machine]
    if host.address is not None:
        return host.address
    return next((interface.ip for interface in host.lans.values()), None)


def name_server(rehearsal: Rehearsal, machine: str) -> IPv4Address | None:
    """Whom a machine asks for names: its site's router; None for one that is on no site and has no way there."""
    site = rehearsal.hosts[machine].site
    return None if site is None else _first(rehearsal.sites[site].prefix)


def batch(topology: Topology) -> Mapping[str, str]:
    """The `ip -batch` input of each namespace: links, bridges, cables, own addresses.

    Cables are made from the machine's side: the far end goes straight into its namespace, which has to exist.
    Routes come with `settle`, as their next hops may be across a cable that is made later.
    """
    lines: dict[str, list[str]] = {
        name: ["link set lo up"] for name in (*topology.helpers, CONTROL, *topology.machines)
    }
    for bridge in topology.bridges:
        lines[bridge.namespace] += [f"link add {bridge.name} type bridge", f"link set {bridge.name} up"]
        if bridge.address:
            lines[bridge.namespace].append(f"addr add {bridge.address} dev {bridge.name}")
    for port in topology.ports:
        lines[port.namespace] += [
            f"link add {port.interface} address {port.hardware_address} type veth "
            f"peer name {port.far_interface} netns {port.far}",
            f"link set {port.interface} up",
            *([f"addr add {port.address} dev {port.interface}"] if port.address else []),
        ]
    return {name: "\n".join(commands) + "\n" for name, commands in lines.items()}


def settle(topology: Topology, router: IPv4Interface) -> Mapping[str, str]:
    """The second batch, once every cable is there: the far ends into their bridges, and the routes.

    `router` is the router's address towards the control namespace.
    """
    lines: dict[str, list[str]] = {}
    for port in topology.ports:
        far = lines.setdefault(port.far, [])
        if port.bridge:
            far.append(f"link set {port.far_interface} master {port.bridge}")
        else:
            far.append(f"addr add {router} dev {port.far_interface}")
        far.append(f"link set {port.far_interface} up")
    for route in topology.routes:
        lines.setdefault(route.namespace, []).append(f"route add {route.to} via {route.via}")
    return {name: "\n".join(commands) + "\n" for name, commands in lines.items()}


def _lans(rehearsal: Rehearsal) -> Mapping[str, str]:
    """Bridges of the LANs by name; numbered, as an interface's name is short."""
    names = dict.fromkeys(lan for host in rehearsal.hosts.values() for lan in host.lans)
    found = {name: f"lan{number}" for number, name in enumerate(names)}
    return found | ({AWS_LAN: AWS_LAN} if rehearsal.aws else {})


def _machine_ports(rehearsal: Rehearsal, lans: Mapping[str, str]) -> Iterator[Port]:
    number = 0
    for name, host in rehearsal.hosts.items():
        if host.site is not None:
            prefix = rehearsal.sites[host.site].prefix
            address = IPv4Interface(f"{host.address}/{prefix.prefixlen}") if host.address else None
            number += 1
            yield Port(name, "eth0", ROUTER, site_bridge(host.site), f"p{number}", address)
        for index, (lan, interface) in enumerate(_segments(host, rehearsal), start=1):
            number += 1
            yield Port(name, f"eth{index}", SWITCH, lans[lan], f"p{number}", interface)


def _segments(host: StandIn, rehearsal: Rehearsal) -> Iterator[tuple[str, IPv4Interface | None]]:
    yield from host.lans.items()
    if rehearsal.aws and host.stands_for is not None:
        yield AWS_LAN, None


def _routes(rehearsal: Rehearsal, router: IPv4Interface) -> Iterator[NextHop]:
    for site in rehearsal.sites.values():
        yield NextHop(CONTROL, site.prefix, router.ip)
    for name, host in rehearsal.hosts.items():
        if host.site is not None and host.address is not None:
            yield NextHop(name, IPv4Network("0.0.0.0/0"), _first(rehearsal.sites[host.site].prefix))
        for route in host.routes:
            yield NextHop(name, route.to, route.via)


def _control_pair(rehearsal: Rehearsal) -> tuple[IPv4Address, IPv4Address]:
    first = _first(rehearsal.control)
    return first + 1, first


def _first(prefix: IPv4Network) -> IPv4Address:
    return prefix.network_address + 1
