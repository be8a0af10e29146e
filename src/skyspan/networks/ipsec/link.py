"""What each end of a link is to look like, worked out from settings, hosts and planes: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_interface, ip_network

from skyspan.contracts.host import Host
from skyspan.model.address import StageAddress
from skyspan.model.error import SpecError
from skyspan.model.value import digest
from skyspan.networks.addressing import (
    POOL_V6,
    POOLS_V4,
    Network,
    PoolExhaustedError,
    allocate_pair,
    interface_name,
    stable_number,
)
from skyspan.networks.endpoints import parse_endpoint
from skyspan.networks.firewall import Address
from skyspan.networks.ipsec.filter import EndFilter, ruleset
from skyspan.networks.ipsec.spec import End, IpsecSpec, Plane
from skyspan.networks.peers import Site, conflicts

USERSPACE_INTERFACE = "ipsec0"
"""The TUN device of strongSwan's kernel-libipsec, one for all its connections."""

USERSPACE_MTU = 1400
"""What that device carries: TUN_DEFAULT_MTU in strongSwan's tun_device.h."""

CHILD = "net"
"""The name of the only CHILD_SA of a connection."""

IKE_PORT = 500
"""Where IKE listens (RFC 7296, 2)."""


@dataclass(frozen=True, slots=True)
class EndState:
    """One end as it is to be. Networks and addresses are in their shortest form, as `ip` prints them.

    `name` names connection, files and, by `plane`, the interface. `calls` is where the other end is, empty when that
    one calls; `initiates` is true for exactly one of both. `wide` when traffic selectors leave the choice to routes.
    `families` are the IP versions that this gateway must forward. `sudo` when its login is not root. `learned` when BGP
    routes the prefixes of the other side. A change of its firewall has to be confirmed in `confirm_within` seconds.
    """

    host: str
    other: str
    owner: str
    name: str
    plane: Plane
    wide: bool
    addresses: tuple[str, ...]
    peer_addresses: tuple[str, ...]
    here: tuple[Network, ...]
    there: tuple[Network, ...]
    own_id: str
    peer_id: str
    listens: str
    calls: str
    port: int
    initiates: bool
    mtu: int
    firewall: str
    families: tuple[int, ...]
    sudo: bool
    confirm_within: float
    learned: bool = False

    @property
    def table(self) -> str:
        """The name of its nftables table, of family inet."""
        return table_name(self.name)

    @property
    def interface(self) -> str:
        """The interface that packets pass through; empty when there is none."""
        return interface_for(self.name, self.plane)

    @property
    def number(self) -> int:
        """The XFRM interface's `if_id`: what joins interface and policies."""
        return stable_number(self.name) % 0x7FFFFFFF + 1

    @property
    def local_selectors(self) -> tuple[str, ...]:
        """What this end may send from."""
        return self._everything() if self.wide else _selectors(self.here, self.addresses)

    @property
    def remote_selectors(self) -> tuple[str, ...]:
        """What it may send to."""
        return self._everything() if self.wide else _selectors(self.there, self.peer_addresses)

    @property
    def destinations(self) -> tuple[Network, ...]:
        """What the link itself routes to the other side, its tunnel addresses included."""
        inner = tuple(ip_network(address) for address in self.peer_addresses)
        return inner if self.learned else (*self.there, *inner)

    @property
    def admitted(self) -> tuple[str, ...]:
        """What Docker's chains are to let through: an IP version and matches of iptables(8) each."""
        return tuple(
            line
            for net in (*self.there, *(ip_network(address) for address in self.peer_addresses))
            if net.version in self.families
            for line in (f"{net.version} -s {net} {self._by('in')}", f"{net.version} -d {net} {self._by('out')}")
        )

    @property
    def admitted_families(self) -> tuple[int, ...]:
        """The IP versions among them."""
        return tuple(sorted({int(line.partition(" ")[0]) for line in self.admitted}))

    @property
    def admitted_text(self) -> str:
        """The same as the scripts take it, and as it is written down on the host."""
        return "".join(f"{line}\n" for line in self.admitted)

    def _by(self, way: str) -> str:
        """How a packet that comes out of the link, or goes into it, is told from one in the clear."""
        if not self.interface:
            return f"-m policy --dir {way} --pol ipsec"
        return f"-{way[0]} {self.interface}"

    def _everything(self) -> tuple[str, ...]:
        return tuple("0.0.0.0/0" if family == 4 else "::/0" for family in self.families)


def _selectors(networks: Sequence[Network], addresses: Sequence[str]) -> tuple[str, ...]:
    return (*(str(net) for net in networks), *(str(ip_network(address)) for address in addresses))


def table_name(name: str) -> str:
    """The nftables table that goes with a link."""
    return f"skyspan-{name}"


def interface_for(name: str, plane: str) -> str:
    """The interface that packets of a link pass through; empty when there is none."""
    return {"route": name, "userspace": USERSPACE_INTERFACE}.get(plane, "")


def name_of(address: StageAddress) -> str:
    """The name of the link on both hosts: of its connection, its files, its interface."""
    return interface_name(str(address))


def settings_digest(spec: IpsecSpec, ends: Sequence[EndState]) -> str:
    """A digest of all settings and of where the ends find each other; kept sealed only, as settings may hold keys."""
    return digest([spec.model_dump(), [end.calls for end in ends]])


def plan_ends(
    spec: IpsecSpec, address: StageAddress, hosts: Mapping[str, Host], planes: Mapping[str, Plane]
) -> tuple[EndState, EndState]:
    """Both ends as they are to be, by the plane of each host (default: `route`).

    Raises SpecError for what cannot work, before any host is touched.
    """
    tunnel = tunnel_addresses(spec, address)
    inside = [ip_network(text) for text in (*tunnel[0], *tunnel[1])]
    sites = [Site(end.host, end.networks, _outside(end, hosts)[0]) for end in spec.between]
    problems = list(conflicts(sites, tuple(dict.fromkeys(inside))))
    if problems:
        raise SpecError(
            f"the link cannot work: {problems[0]}",
            detail="\n".join(problems[1:]),
            hint="every network may be behind one side only, and endpoints outside all of them",
        )
    caller = initiator(spec)
    chosen = [planes.get(end.host, "route") for end in spec.between]
    wide = all(plane == "route" for plane in chosen)
    one, other = spec.between
    pairs = ((one, other, tunnel[0], tunnel[1]), (other, one, tunnel[1], tunnel[0]))
    first, second = (
        _end(spec, (end, peer), (own, theirs), hosts, (str(address), name_of(address), plane, wide, end is caller))
        for (end, peer, own, theirs), plane in zip(pairs, chosen, strict=True)
    )
    return first, second


def initiator(spec: IpsecSpec) -> End:
    """The end that calls, the only one: the one behind NAT that cannot be called, else the lower name."""
    hidden = [end for end in spec.between if end.nat and end.endpoint is None]
    return (hidden or [end for end in spec.between if end.nat] or sorted(spec.between, key=lambda end: end.host))[0]


def _end(
    spec: IpsecSpec,
    ends: tuple[End, End],
    tunnel: tuple[tuple[str, ...], tuple[str, ...]],
    hosts: Mapping[str, Host],
    chosen: tuple[str, str, Plane, bool, bool],
) -> EndState:
    end, other = ends
    owner, name, plane, wide, initiates = chosen
    mtu = min(spec.mtu, USERSPACE_MTU) if plane == "userspace" else spec.mtu
    own, peer = (tuple(ip_interface(text).ip for text in texts) for texts in tunnel)
    calls, port = _outside(other, hosts)
    end_filter = EndFilter(
        table=table_name(name),
        interface=interface_for(name, plane),
        mtu=mtu,
        allow=spec.admissions,
        here=end.networks,
        there=other.networks,
        own=own,
        peer=peer,
    )
    return EndState(
        host=end.host,
        other=other.host,
        owner=owner,
        name=name,
        plane=plane,
        wide=wide,
        addresses=tuple(_text(address) for address in own),
        peer_addresses=tuple(_text(address) for address in peer),
        here=end.networks,
        there=other.networks,
        own_id=end.id or f"{end.host}.{name}",
        peer_id=other.id or f"{other.host}.{name}",
        listens=_outside(end, hosts)[0],
        calls=calls,
        port=port,
        initiates=initiates,
        mtu=mtu,
        firewall=ruleset(end_filter),
        families=tuple(sorted({net.version for net in (*end.networks, *other.networks)})),
        sudo=hosts[end.host].user != "root",
        confirm_within=spec.confirm_within,
    )


def _text(address: Address) -> str:
    return str(address)


def _outside(end: End, hosts: Mapping[str, Host]) -> tuple[str, int]:
    """Where the other end finds this one; an empty address when it cannot."""
    if end.host not in hosts:
        raise SpecError(
            f"the composition has no host {end.host!r}", hint=f"hosts: {', '.join(sorted(hosts)) or 'none'}"
        )
    if end.endpoint is None:
        return ("" if end.nat else hosts[end.host].address), IKE_PORT
    address, port = parse_endpoint(end.endpoint)
    return address, port or IKE_PORT


def tunnel_addresses(spec: IpsecSpec, address: StageAddress) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The addresses of both ends inside the tunnel. Raises SpecError when none are left."""
    one, other = spec.between
    if one.address is not None and other.address is not None:
        return (str(ip_interface(one.address).ip),), (str(ip_interface(other.address).ip),)
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
    first = network.network_address + (0 if network.num_addresses == 2 else 1)
    return str(first), str(first + 1)
