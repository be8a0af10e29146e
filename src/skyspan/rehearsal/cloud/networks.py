"""What the state of the cloud means for the world's networks: addresses, routes, and what its edge admits (pure)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from skyspan.rehearsal.cloud.state import CloudState, Instance, Permit, Subnet, ends_of, standing_in
from skyspan.rehearsal.cloud.vpn import Vpn
from skyspan.rehearsal.cloud.vpn_daemons import TABLE
from skyspan.rehearsal.spec import Rehearsal
from skyspan.rehearsal.underlay.topology import AWS_LAN, AWS_ROUTER, ROUTER, Topology, site_bridge

ANY = IPv4Network("0.0.0.0/0")


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
            *(
                setting
                for machine, vpn in ends_of(state, rehearsal).items()
                for setting in _vpn_settings(machine, vpn, state, rehearsal, topology)
            ),
            *(setting for subnet in state.subnets.values() for setting in _subnet_settings(subnet, state)),
        ]
    )


def edge_filter(state: CloudState) -> str:
    """The router's nftables table: from outside, an Elastic IP admits what the instance's security groups admit, and
    the ends of a VPN connection admit IPsec from their customer gateway."""
    lines = ["table inet aws", "delete table inet aws", "table inet aws {", " chain edge {"]
    lines += ["  type filter hook forward priority 0", "  ct state established,related accept"]
    for instance in sorted(state.instances, key=lambda one: one.id):
        if instance.elastic is None:
            continue
        lines += [f"  {_match(permit, instance.elastic)} accept" for permit in instance.permits]
        lines.append(f"  ip daddr {instance.elastic} drop")
    for vpn in sorted(state.vpns, key=lambda one: one.id):
        for address in vpn.outside:
            ends = f"  ip saddr {vpn.customer} ip daddr {address}"
            lines += [f"{ends} udp dport {{ 500, 4500 }} accept", f"{ends} ip protocol esp accept"]
            lines.append(f"  ip daddr {address} drop")
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


def _vpn_settings(
    machine: str, vpn: Vpn, state: CloudState, rehearsal: Rehearsal, topology: Topology
) -> Iterator[Setting]:
    """Both outside addresses; and inside, what comes from the VPC goes where the gateway knows a way, or nowhere."""
    site = rehearsal.hosts[machine].site
    assert site is not None, "the section was validated"
    bridge, router = site_bridge(site), rehearsal.sites[site].prefix.network_address + 1
    outside, inside = topology.interface(machine, bridge), topology.interface(machine, AWS_LAN)
    for address in vpn.outside:
        yield _address(machine, f"{address}/32", f"{outside}")
        yield _route(ROUTER, f"{address}/32 dev {bridge}")
    yield _route(machine, f"default via {router} dev {outside} onlink src {vpn.outside[0]}")
    for priority, action in ((TABLE, f"lookup {TABLE}"), (TABLE + 1, "unreachable")):
        rule = f"priority {priority} iif {inside}"
        yield Setting(3, machine, f"rule add {rule} {action}", f"rule del {rule}")
    own = _gateway_subnet(vpn, state)
    if own is not None:
        yield _address(machine, f"{_gateway_address(own.prefix)}/{own.prefix.prefixlen}", f"{inside}")
        if own.vpc != own.prefix:
            yield _route(machine, f"{own.vpc} via {own.prefix.network_address + 1} dev {inside}")


def _gateway_subnet(vpn: Vpn, state: CloudState) -> Subnet | None:
    """The subnet in which the stand-in of a VPN gateway is; the cloud's own is in none."""
    fits = [subnet for subnet in state.subnets.values() if subnet.vpc == vpn.vpc]
    return min(fits, key=lambda subnet: subnet.prefix, default=None)


def _gateway_address(subnet: IPv4Network) -> IPv4Address:
    """The fourth address of every subnet is reserved by AWS, so nobody has it."""
    return subnet.network_address + 3


def _subnet_settings(subnet: Subnet, state: CloudState) -> Iterator[Setting]:
    """The VPC's own router: the first address of the subnet, and its route table for what comes from it.

    A route to an instance that does not forward (source/destination check left on), or to a VPN gateway that has no
    connection, is a black hole, as in AWS.
    """
    table = 1000 + int.from_bytes(subnet.prefix.network_address.packed[1:3])
    yield _address(AWS_ROUTER, f"{subnet.prefix.network_address + 1}/{subnet.prefix.prefixlen}", "vpc")
    yield Setting(
        3, AWS_ROUTER, f"rule add from {subnet.prefix} lookup {table} priority {table}", f"rule del priority {table}"
    )
    for other in state.subnets.values():
        if other.vpc == subnet.vpc:
            yield _route(AWS_ROUTER, f"{other.prefix} dev vpc table {table}")
    hops = {one.id: one.private for one in state.instances if one.forwards}
    hops |= {one.gateway: _gateway_address(own.prefix) for one in state.vpns if (own := _gateway_subnet(one, state))}
    ways = {route.to: hops.get(route.target) for route in subnet.routes}
    for vpn in state.vpns:
        if vpn.gateway in subnet.follows:
            # What a gateway learns by BGP is known to it alone, so it is given all that nobody else has.
            learned = vpn.routes if vpn.static else (ANY,)
            ways = {**dict.fromkeys(learned, hops.get(vpn.gateway)), **ways}
    for to, hop in ways.items():
        if hop is None:
            yield _route(AWS_ROUTER, f"blackhole {to} table {table}")
        else:
            yield _route(AWS_ROUTER, f"{to} via {hop} dev vpc onlink table {table}")


def _address(namespace: str, address: str, interface: str) -> Setting:
    return Setting(1, namespace, f"addr add {address} dev {interface}", f"addr del {address} dev {interface}")


def _route(namespace: str, route: str) -> Setting:
    return Setting(2, namespace, f"route replace {route}", f"route del {route}")
