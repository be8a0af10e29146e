"""What the stand-in AWS holds, as plain values, and what that means for the world's networks (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

from skyspan.rehearsal.spec import Rehearsal, uses_tags
from skyspan.rehearsal.topology import AWS_LAN, AWS_ROUTER, ROUTER, Topology, site_bridge

ANY = IPv4Network("0.0.0.0/0")


@dataclass(frozen=True, slots=True)
class Permit:
    """One ingress rule of a security group. `protocol` is tcp, udp, icmp or -1 (all); ports are inclusive."""

    protocol: str
    first: int
    last: int
    source: IPv4Network


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance that is running."""

    id: str
    tags: Mapping[str, str]
    subnet: str
    private: IPv4Address
    elastic: IPv4Address | None = None
    forwards: bool = False
    permits: tuple[Permit, ...] = ()


@dataclass(frozen=True, slots=True)
class CloudRoute:
    """A route of a route table to an instance's interface."""

    to: IPv4Network
    instance: str


@dataclass(frozen=True, slots=True)
class Subnet:
    """A subnet of a VPC, with the routes of its route table."""

    id: str
    prefix: IPv4Network
    vpc: IPv4Network
    routes: tuple[CloudRoute, ...] = ()


@dataclass(frozen=True, slots=True)
class CloudState:
    """What matters of an account: running instances, and the subnets that they are in."""

    instances: tuple[Instance, ...] = ()
    subnets: Mapping[str, Subnet] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, order=True)
class Setting:
    """One thing set in a namespace by an `ip` command, and the command that takes it away again.

    They are made in order of `rank` and taken away in the reverse order.
    """

    rank: int
    namespace: str
    make: str
    undo: str


def settings(state: CloudState, rehearsal: Rehearsal, topology: Topology) -> frozenset[Setting]:
    """Everything that the state of the cloud asks of the namespaces: addresses, and routes, also between subnets."""
    return frozenset(
        [
            *(
                setting
                for machine, instance in standing_in(state, rehearsal).items()
                for setting in _machine_settings(machine, instance, state, rehearsal, topology)
            ),
            *(setting for subnet in state.subnets.values() for setting in _subnet_settings(subnet, state)),
        ]
    )


def standing_in(state: CloudState, rehearsal: Rehearsal) -> Mapping[str, Instance]:
    """Which instance each stand-in stands for now; of several that fit, the first by id."""
    found: dict[str, Instance] = {}
    for name, host in rehearsal.hosts.items():
        if host.stands_for is None:
            continue
        wanted = host.stands_for.aws_instance
        fits = sorted((one for one in state.instances if uses_tags(one.tags, wanted)), key=lambda one: one.id)
        if fits:
            found[name] = fits[0]
    return found


def edge_filter(state: CloudState) -> str:
    """The router's nftables table: from outside, an Elastic IP admits what the instance's security groups admit."""
    lines = ["table inet aws", "delete table inet aws", "table inet aws {", " chain edge {"]
    lines += ["  type filter hook forward priority 0", "  ct state established,related accept"]
    for instance in sorted(state.instances, key=lambda one: one.id):
        if instance.elastic is None:
            continue
        lines += [f"  {_match(permit, instance.elastic)} accept" for permit in instance.permits]
        lines.append(f"  ip daddr {instance.elastic} drop")
    return "\n".join([*lines, " }", "}"]) + "\n"


def _match(permit: Permit, address: IPv4Address) -> str:
    ends = f"ip saddr {permit.source} ip daddr {address}"
    if permit.protocol in ("tcp", "udp"):
        return f"{ends} {permit.protocol} dport {permit.first}-{permit.last}"
    return f"{ends} ip protocol icmp" if permit.protocol == "icmp" else ends


def _machine_settings(
    machine: str, instance: Instance, state: CloudState, rehearsal: Rehearsal, topology: Topology
) -> Iterator[Setting]:
    host = rehearsal.hosts[machine]
    inside = topology.interface(machine, AWS_LAN)
    subnet = state.subnets.get(instance.subnet)
    if inside is not None and subnet is not None:
        gateway = subnet.prefix.network_address + 1
        yield _address(machine, f"{instance.private}/{subnet.prefix.prefixlen}", inside)
        if subnet.vpc != subnet.prefix:
            yield _route(machine, f"{subnet.vpc} via {gateway} dev {inside}")
        if host.site is None:
            yield _route(machine, f"default via {gateway} dev {inside}")
    if instance.elastic is None or host.site is None:
        return
    bridge = site_bridge(host.site)
    outside = topology.interface(machine, bridge)
    router = rehearsal.sites[host.site].prefix.network_address + 1
    yield _address(machine, f"{instance.elastic}/32", f"{outside}")
    yield _route(ROUTER, f"{instance.elastic}/32 dev {bridge}")
    if host.address is None:
        yield _route(machine, f"default via {router} dev {outside} onlink src {instance.elastic}")


def _subnet_settings(subnet: Subnet, state: CloudState) -> Iterator[Setting]:
    """The VPC's own router: the first address of the subnet, and its route table for what comes from it.

    A route to an instance that does not forward (source/destination check left on) is a black hole, as in AWS.
    """
    table = 1000 + int.from_bytes(subnet.prefix.network_address.packed[1:3])
    yield _address(AWS_ROUTER, f"{subnet.prefix.network_address + 1}/{subnet.prefix.prefixlen}", "vpc")
    yield Setting(
        3, AWS_ROUTER, f"rule add from {subnet.prefix} lookup {table} priority {table}", f"rule del priority {table}"
    )
    for other in state.subnets.values():
        if other.vpc == subnet.vpc:
            yield _route(AWS_ROUTER, f"{other.prefix} dev vpc table {table}")
    instances = {instance.id: instance for instance in state.instances}
    for route in subnet.routes:
        target = instances.get(route.instance)
        if target is None or not target.forwards:
            yield _route(AWS_ROUTER, f"blackhole {route.to} table {table}")
        else:
            yield _route(AWS_ROUTER, f"{route.to} via {target.private} dev vpc onlink table {table}")


def _address(namespace: str, address: str, interface: str) -> Setting:
    return Setting(1, namespace, f"addr add {address} dev {interface}", f"addr del {address} dev {interface}")


def _route(namespace: str, route: str) -> Setting:
    return Setting(2, namespace, f"route replace {route}", f"route del {route}")
