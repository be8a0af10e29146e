"""Both tunnels as the host is to have them, and the BGP sessions through them, worked out from settings: pure."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address

from skyspan.contracts.host import Host
from skyspan.model.address import StageAddress
from skyspan.model.error import SpecError
from skyspan.model.value import digest
from skyspan.networks.awsvpn.spec import CLOUD, AwsVpnSpec, Tunnel
from skyspan.networks.bgp.spec import BGP_PORT, BgpSpec, Over, Session, Speaker
from skyspan.networks.firewall import Address
from skyspan.networks.ipsec.filter import EndFilter, ruleset
from skyspan.networks.ipsec.keys import Keys
from skyspan.networks.ipsec.link import (
    IKE_PORT,
    USERSPACE_MTU,
    EndState,
    interface_for,
    name_of,
    table_name,
)
from skyspan.networks.ipsec.spec import Plane
from skyspan.networks.peers import Site, conflicts

TUNNELS = (1, 2)

SHARED = (
    "both tunnels are up at once, but share one interface: traffic takes the tunnel whose keys are newest, no one can "
    "prefer one, and what comes back may come by the other"
)
"""What has to be known where no interface of its own belongs to each tunnel."""


def names_of(address: StageAddress) -> tuple[str, ...]:
    """The names of both tunnels on the host: of connections, files, tables and interfaces."""
    return tuple(f"{name_of(address)}-{number}" for number in TUNNELS)


def planes_of(spec: AwsVpnSpec) -> tuple[Plane, ...]:
    """Who may carry the packets, the best first. Without BGP nobody would move routes from interface to interface, but
    policies of a tunnel that is gone are gone too."""
    return ("policy" if spec.bgp is None else "route", "userspace")


def settings_digest(spec: AwsVpnSpec, ends: tuple[EndState, ...]) -> str:
    """A digest of all settings and of who the host is; kept sealed only, as the settings hold keys."""
    return digest([spec.model_dump(), [end.own_id for end in ends]])


def plan_tunnels(
    spec: AwsVpnSpec,
    address: StageAddress,
    hosts: Mapping[str, Host],
    plane: Plane | None = None,
    source: Address | None = None,
) -> tuple[EndState, ...]:
    """Both tunnels as they are to be; `plane` is the best until the host was looked at, `source` the host's address in
    its site. Raises SpecError for what cannot work, before the host is touched."""
    if spec.host not in hosts:
        known = ", ".join(sorted(hosts)) or "none"
        raise SpecError(f"the composition has no host {spec.host!r}", hint=f"hosts: {known}")
    host = hosts[spec.host]
    inside = [tunnel.network for tunnel in spec.facts.tunnels]
    problems = list(conflicts([Site(spec.host, spec.here, host.address), Site(CLOUD, spec.there)], inside))
    if problems:
        raise SpecError(
            f"the link cannot work: {problems[0]}",
            detail="\n".join(problems[1:]),
            hint="every network may be on one side only, and the host's address outside all of them",
        )
    return tuple(
        _tunnel(spec, tunnel, address, host, (plane or planes_of(spec)[0], source)) for tunnel in spec.facts.tunnels
    )


def _tunnel(
    spec: AwsVpnSpec, tunnel: Tunnel, address: StageAddress, host: Host, found: tuple[Plane, Address | None]
) -> EndState:
    plane, source = found
    names = names_of(address)
    name = names[tunnel.number - 1]
    interface = interface_for(name, plane)
    mtu = min(spec.mtu, USERSPACE_MTU) if plane == "userspace" else spec.mtu
    end_filter = EndFilter(
        table=table_name(name),
        interface=interface,
        mtu=mtu,
        allow=spec.admissions,
        here=spec.here,
        there=spec.there,
        own=(ip_address(tunnel.own),),
        peer=(ip_address(tunnel.peer),),
        others=tuple(other for other in names if other != name) if plane == "route" else (),
        speaks=() if spec.bgp is None else (BGP_PORT,),
        leaves_as=source,
    )
    return EndState(
        host=host.name,
        other=f"tunnel {tunnel.number}",
        owner=str(address),
        name=name,
        plane=plane,
        wide=plane == "route",
        addresses=(tunnel.own,),
        peer_addresses=(tunnel.peer,),
        here=spec.here,
        there=spec.there,
        own_id=_identity(spec, host),
        peer_id=tunnel.outside,
        listens=host.address,
        calls=tunnel.outside,
        port=IKE_PORT,
        initiates=True,
        mtu=mtu,
        firewall=ruleset(end_filter),
        families=(4,),
        sudo=host.user != "root",
        confirm_within=spec.confirm_within,
        learned=spec.bgp is not None,
    )


def _identity(spec: AwsVpnSpec, host: Host) -> str:
    """The cloud knows the host by its public address."""
    try:
        return spec.id or str(ip_address(host.address))
    except ValueError:
        raise SpecError(
            f"the address of {host.name} is the name {host.address}, but the cloud knows it by a public address",
            hint="give `id`: `ip_address` of the aws_customer_gateway",
        ) from None


def keys_of(spec: AwsVpnSpec, end: EndState) -> Keys:
    """The shared key of a tunnel, and the other one, which nobody may see either."""
    own = next(tunnel.key for tunnel in spec.facts.tunnels if tunnel.outside == end.calls)
    return Keys(own, others=tuple(tunnel.key for tunnel in spec.facts.tunnels if tunnel.key != own))


def sessions_of(spec: AwsVpnSpec, ends: tuple[EndState, ...]) -> BgpSpec | None:
    """The BGP stage that speaks through both tunnels; None without `bgp`."""
    if spec.bgp is None:
        return None
    own = Speaker(host=spec.host, asn=spec.bgp.asn, announce=spec.prefixes, daemon=spec.bgp.daemon)
    clouds = tuple(
        Speaker(host=f"tunnel{tunnel.number}", asn=tunnel.asn or 0, announce=spec.remote, managed=False)
        for tunnel in spec.facts.tunnels
    )
    sessions = tuple(
        Session(
            between=(spec.host, cloud.host),
            over=Over(
                interface=end.interface,
                addresses={spec.host: (f"{end.addresses[0]}/32",), cloud.host: (f"{end.peer_addresses[0]}/32",)},
            ),
        )
        for end, cloud in zip(ends, clouds, strict=True)
    )
    holds = [tunnel.hold for tunnel in spec.facts.tunnels if tunnel.hold is not None]
    return BgpSpec(
        speakers=(own, *clouds),
        sessions=sessions,
        # A cloud-managed VPN speaks no BFD.
        bfd=False,
        hold=min(holds, default=30),
        probes={} if spec.ping is None else {"tunnel1": spec.ping},
        ready_within=spec.ready_within,
    )
