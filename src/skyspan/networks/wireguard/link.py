"""What each end of a link is to look like, worked out from settings, hosts and keys: pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network

from skyspan.contracts.host import Host
from skyspan.model.address import StageAddress
from skyspan.model.error import SpecError
from skyspan.model.value import digest
from skyspan.networks.addressing import POOL_V6, POOLS_V4, Network, PoolExhaustedError, allocate_pair, interface_name
from skyspan.networks.firewall import Address, LinkFilter, ruleset
from skyspan.networks.peers import Site, conflicts
from skyspan.networks.wireguard.spec import End, WireguardSpec, parse_endpoint

ROUTE_PROTOCOL = 241
"""The number that marks our routes (rtnetlink(7), rtm_protocol): not among those of iproute2's rt_protos."""


@dataclass(frozen=True, slots=True)
class EndState:
    """One end as it is to be. Networks and addresses are in their shortest form, as `ip` prints them.

    `calls` is the endpoint of the other end, empty when that one calls. `destinations` are routed over the interface.
    `families` are the IP versions that this gateway must forward. `sudo` when its login is not root.
    """

    host: str
    other: str
    owner: str
    interface: str
    addresses: tuple[str, ...]
    peer_addresses: tuple[str, ...]
    here: tuple[Network, ...]
    there: tuple[Network, ...]
    destinations: tuple[Network, ...]
    listens: str
    calls: str
    port: int
    keepalive: int
    mtu: int
    plane: str
    firewall: str
    families: tuple[int, ...]
    sudo: bool

    @property
    def table(self) -> str:
        """The name of its nftables table, of family inet."""
        return table_name(self.interface)

    @property
    def allowed_ips(self) -> tuple[str, ...]:
        """What the other end may send from, and is sent to."""
        peers = (ip_network(address) for address in self.peer_addresses)
        return tuple(str(net) for net in (*peers, *self.there))


def table_name(interface: str) -> str:
    """The nftables table that goes with an interface."""
    return f"skyspan-{interface}"


def interface_of(spec: WireguardSpec, address: StageAddress) -> str:
    """The name of the link's interface."""
    return spec.interface or interface_name(str(address))


def settings_digest(spec: WireguardSpec, ends: tuple[EndState, EndState]) -> str:
    """A digest of all settings and of where the ends find each other; kept sealed only, as settings may hold keys."""
    return digest([spec.model_dump(), [end.calls for end in ends]])


def plan_ends(spec: WireguardSpec, address: StageAddress, hosts: Mapping[str, Host]) -> tuple[EndState, EndState]:
    """Both ends as they are to be. Raises SpecError for what cannot work, before any host is touched."""
    tunnel = tunnel_addresses(spec, address)
    networks = [ip_interface(text).network for text in (*tunnel[0], *tunnel[1])]
    # A host route of its own (a /32) cannot overlap anything that the other end's does not.
    sites = [Site(end.host, end.networks, _outside(end, hosts)[0]) for end in spec.between]
    problems = list(conflicts(sites, tuple(dict.fromkeys(networks))))
    if problems:
        raise SpecError(
            f"the link cannot work: {problems[0]}",
            detail="\n".join(problems[1:]),
            hint="every network may be behind one side only, and endpoints outside all of them",
        )
    one, other = spec.between
    interface = interface_of(spec, address)
    return (
        _end(spec, (one, other), (tunnel[0], tunnel[1]), hosts, (str(address), interface)),
        _end(spec, (other, one), (tunnel[1], tunnel[0]), hosts, (str(address), interface)),
    )


def _end(
    spec: WireguardSpec,
    ends: tuple[End, End],
    tunnel: tuple[tuple[str, ...], tuple[str, ...]],
    hosts: Mapping[str, Host],
    names: tuple[str, str],
) -> EndState:
    end, other = ends
    peers = tuple(str(ip_interface(text).ip) for text in tunnel[1])
    reachable = [ip_interface(text).network for text in tunnel[0]]
    beside = tuple(ip_network(peer) for peer in peers if not any(ip_address(peer) in net for net in reachable))
    # The side behind a NAT keeps the way open; without one, both do.
    sends = end.nat or not other.nat
    owner, interface = names
    link_filter = LinkFilter(
        table=table_name(interface),
        interface=interface,
        mtu=spec.mtu,
        allow=spec.admissions,
        here=end.networks,
        there=other.networks,
        own=tuple(ip_interface(text).ip for text in tunnel[0]),
        peer=tuple(ip_address(peer) for peer in peers),
    )
    return EndState(
        host=end.host,
        other=other.host,
        owner=owner,
        interface=interface,
        addresses=tunnel[0],
        peer_addresses=peers,
        here=end.networks,
        there=other.networks,
        destinations=(*beside, *other.networks),
        listens=_joined(_outside(end, hosts)),
        calls=_joined(_outside(other, hosts)),
        port=end.port,
        keepalive=spec.keepalive if sends else 0,
        mtu=spec.mtu,
        plane=spec.plane,
        firewall=ruleset(link_filter),
        families=tuple(sorted({net.version for net in (*end.networks, *other.networks)})),
        sudo=hosts[end.host].user != "root",
    )


def _outside(end: End, hosts: Mapping[str, Host]) -> tuple[str, int]:
    """Where the other end finds this one; an empty address when it cannot."""
    if end.host not in hosts:
        raise SpecError(
            f"the composition has no host {end.host!r}", hint=f"hosts: {', '.join(sorted(hosts)) or 'none'}"
        )
    if end.endpoint is None:
        return ("" if end.nat else hosts[end.host].address), end.port
    address, port = parse_endpoint(end.endpoint)
    return address, port or end.port


def _joined(place: tuple[str, int]) -> str:
    address, port = place
    if not address:
        return ""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def tunnel_addresses(spec: WireguardSpec, address: StageAddress) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The addresses of both ends inside the tunnel, with their prefix length. Raises SpecError when none are left."""
    one, other = spec.between
    if one.address is not None and other.address is not None:
        return (str(ip_interface(one.address)),), (str(ip_interface(other.address)),)
    if spec.tunnel is not None:
        pairs = [_pair(ip_network(spec.tunnel))]
    else:
        avoid = [net for end in spec.between for net in end.networks]
        try:
            nets: list[Network] = [allocate_pair(str(address), POOLS_V4, avoid)]
            if any(net.version == 6 for net in avoid):
                nets.append(allocate_pair(str(address), (POOL_V6,), avoid))
        except PoolExhaustedError as error:
            raise SpecError(str(error), hint="name a free network of two addresses: `tunnel: 10.254.0.0/31`") from error
        pairs = [_pair(net) for net in nets]
    return tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs)


def _pair(network: Network) -> tuple[str, str]:
    """The first two usable addresses: all of a /31 or /127, else those after the network's own."""
    offset = 0 if network.num_addresses == 2 else 1
    first: Address = network.network_address + offset
    return f"{first}/{network.prefixlen}", f"{first + 1}/{network.prefixlen}"
