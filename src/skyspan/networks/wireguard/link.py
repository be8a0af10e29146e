"""What each end of a link is to look like, worked out from settings, hosts and keys: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network

from skyspan.contracts.host import Host
from skyspan.model.address import StageAddress
from skyspan.model.error import SpecError
from skyspan.model.value import digest
from skyspan.networks.addressing import Network, interface_name
from skyspan.networks.endpoints import parse_endpoint
from skyspan.networks.firewall import LinkFilter, ruleset
from skyspan.networks.peers import Site, conflicts
from skyspan.networks.wireguard.numbering import Addresses, tunnel_addresses
from skyspan.networks.wireguard.spec import End, WireguardSpec


@dataclass(frozen=True, slots=True)
class PeerState:
    """Another end as this one sees it.

    `addresses` are its own inside the tunnel, `behind` what is reached through it beyond those, `calls` its endpoint,
    empty when it is the one that calls; `keepalive` in seconds, 0 for none.
    """

    host: str
    addresses: tuple[str, ...]
    behind: tuple[Network, ...]
    calls: str
    keepalive: int

    @property
    def allowed_ips(self) -> tuple[str, ...]:
        """What it may send from, and is sent to."""
        return (*(str(ip_network(address)) for address in self.addresses), *map(str, self.behind))

    @property
    def called_by_name(self) -> str:
        """The name under which it is called, which may come to mean another address; empty for an address."""
        if not self.calls:
            return ""
        name, _ = parse_endpoint(self.calls)
        try:
            ip_address(name)
        except ValueError:
            return name
        return ""


@dataclass(frozen=True, slots=True)
class EndState:
    """One end as it is to be. Networks and addresses are in their shortest form, as `ip` prints them.

    `here` is what is behind it, `there` what is behind the others. `destinations` are routed over the interface.
    `listens` is its endpoint, empty when nobody can call it. `families` are the IP versions that this gateway must
    forward. `sudo` when its login is not root. `confirm_within` so many seconds its firewall waits for a confirmation.
    """

    host: str
    owner: str
    interface: str
    addresses: tuple[str, ...]
    peers: tuple[PeerState, ...]
    here: tuple[Network, ...]
    there: tuple[Network, ...]
    destinations: tuple[Network, ...]
    listens: str
    port: int
    mtu: int
    plane: str
    firewall: str
    families: tuple[int, ...]
    sudo: bool
    confirm_within: float

    @property
    def table(self) -> str:
        """The name of its nftables table, of family inet."""
        return table_name(self.interface)

    @property
    def peer_addresses(self) -> tuple[str, ...]:
        """The addresses inside the tunnel of all that it is joined to."""
        return tuple(address for peer in self.peers for address in peer.addresses)


Ends = tuple[EndState, ...]


def table_name(interface: str) -> str:
    """The nftables table that goes with an interface."""
    return f"skyspan-{interface}"


def interface_of(spec: WireguardSpec, address: StageAddress) -> str:
    """The name of the link's interface."""
    return spec.interface or interface_name(str(address))


def settings_digest(spec: WireguardSpec, ends: Ends) -> str:
    """A digest of all settings and of where the ends find each other; kept sealed only, as settings may hold keys."""
    return digest([spec.model_dump(), [[peer.calls for peer in end.peers] for end in ends]])


def plan_ends(
    spec: WireguardSpec, address: StageAddress, hosts: Mapping[str, Host], numbers: Mapping[str, int]
) -> Ends:
    """Every end as it is to be, in the order of `between`; `numbers` are the hosts' places among the addresses.

    Raises SpecError for what cannot work, before any host is touched."""
    tunnel = tunnel_addresses(spec, address, numbers)
    networks = [ip_interface(text).network for texts in tunnel.values() for text in texts]
    # A host route of its own (a /32) cannot overlap anything that the others' do not.
    sites = [Site(end.host, end.networks, _outside(end, hosts)[0]) for end in spec.between]
    problems = list(conflicts(sites, tuple(dict.fromkeys(networks))))
    if problems:
        raise SpecError(
            f"the link cannot work: {problems[0]}",
            detail="\n".join(problems[1:]),
            hint="every network may be behind one side only, and endpoints outside all of them",
        )
    names = (str(address), interface_of(spec, address))
    return tuple(_end(spec, end, tunnel, hosts, names) for end in spec.between)


def _end(
    spec: WireguardSpec, end: End, tunnel: Addresses, hosts: Mapping[str, Host], names: tuple[str, str]
) -> EndState:
    peers = tuple(_peer(spec, end, other, tunnel, hosts) for other in spec.between if spec.joined(end, other))
    own = [ip_interface(text) for text in tunnel[end.host]]
    behind = tuple(net for peer in peers for net in peer.behind)
    inside = [ip_network(address) for peer in peers for address in peer.addresses]
    owner, interface = names
    link_filter = LinkFilter(
        table=table_name(interface),
        interface=interface,
        mtu=spec.mtu,
        allow=spec.admissions,
        here=end.networks,
        there=behind,
        own=tuple(address.ip for address in own),
        peer=tuple(net.network_address for net in inside),
        through=(*inside, *behind) if spec.spokes_meet and end.host == spec.hub else (),
    )
    # What the kernel's own route for the tunnel's network does not cover.
    beside = tuple(net for net in inside if not any(net.network_address in address.network for address in own))
    return EndState(
        host=end.host,
        owner=owner,
        interface=interface,
        addresses=tunnel[end.host],
        peers=peers,
        here=end.networks,
        there=behind,
        destinations=_each_once((*beside, *(behind if spec.routes == "declared" else ()))),
        listens=_joined(_outside(end, hosts)),
        port=end.port,
        mtu=spec.mtu,
        plane=spec.plane,
        firewall=ruleset(link_filter),
        families=_forwarded((*end.networks, *behind) if end.networks else link_filter.through),
        sudo=hosts[end.host].user != "root",
        confirm_within=spec.confirm_within,
    )


def _peer(spec: WireguardSpec, end: End, other: End, tunnel: Addresses, hosts: Mapping[str, Host]) -> PeerState:
    # The side behind a NAT keeps the way open; without one, both do.
    sends = end.nat or not other.nat
    behind: tuple[Network, ...] = other.networks
    if spec.spokes_meet and other.host == spec.hub:
        others = [one for one in spec.between if one.host not in (end.host, spec.hub)]
        behind += tuple(ip_network(ip_interface(text).ip) for one in others for text in tunnel[one.host])
        behind += tuple(net for one in others for net in one.networks)
    return PeerState(
        host=other.host,
        addresses=tuple(str(ip_interface(text).ip) for text in tunnel[other.host]),
        behind=behind,
        calls=_joined(_outside(other, hosts)),
        keepalive=spec.keepalive if sends else 0,
    )


def _forwarded(networks: Sequence[Network]) -> tuple[int, ...]:
    """A gateway with nothing behind it forwards nothing, except as a hub where spokes meet."""
    return tuple(sorted({net.version for net in networks}))


def _each_once(networks: Sequence[Network]) -> tuple[Network, ...]:
    """Each once: of the spokes that a spoke meets, the addresses may lie in the kernel's own route already."""
    return tuple(dict.fromkeys(networks))


def _outside(end: End, hosts: Mapping[str, Host]) -> tuple[str, int]:
    """Where the other ends find this one; an empty address when they cannot."""
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
