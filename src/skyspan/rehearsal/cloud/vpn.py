"""What a site-to-site VPN connection of the stand-in AWS is: its rules, its facts, and how AWS writes them (pure).

Rules and forms are those of the EC2 API's reference (CreateVpnConnection, VpnTunnelOptionsSpecification) and of the
"tunnel options" in the AWS Site-to-Site VPN user guide.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any
from xml.sax.saxutils import escape

DEFAULT_ASN = 64512
"""The autonomous system of a virtual private gateway that was given none."""

HOLD_S = 30
"""What AWS asks for as BGP's hold time."""

_DPD_S = 30
"""DPDTimeoutSeconds where the tunnel's options name none."""

INSIDE = IPv4Network("169.254.0.0/16")
_RESERVED = tuple(IPv4Network(f"169.254.{place}/30") for place in (*(f"{third}.0" for third in range(6)), "169.252"))

_KEY = re.compile(r"[A-Za-z1-9._][A-Za-z0-9._]{7,63}")


@dataclass(frozen=True, slots=True)
class Tunnel:
    """One of both tunnels: `outside` is where the cloud listens, `inside` its network of four addresses."""

    outside: IPv4Address
    inside: IPv4Network
    key: str
    dpd_s: int = _DPD_S

    @property
    def cloud(self) -> IPv4Address:
        """The cloud's address inside."""
        return self.inside.network_address + 1

    @property
    def customer(self) -> IPv4Address:
        """The customer gateway's address inside."""
        return self.inside.network_address + 2


@dataclass(frozen=True, slots=True)
class Vpn:
    """A connection that exists. A `static` one has no BGP: it carries to `routes`. `vpc` is what its gateway is in."""

    id: str
    tags: Mapping[str, str]
    gateway: str
    customer: IPv4Address
    customer_asn: int
    asn: int
    tunnels: tuple[Tunnel, ...]
    static: bool = False
    routes: tuple[IPv4Network, ...] = ()
    vpc: IPv4Network | None = None

    @property
    def outside(self) -> tuple[IPv4Address, ...]:
        """Where the cloud listens."""
        return tuple(tunnel.outside for tunnel in self.tunnels)


def refusal(options: Mapping[str, Any], taken: Iterable[IPv4Network]) -> str:
    """What AWS says against a connection's options, or an empty text. `taken` are inside networks of the same gateway.

    Keys are never repeated in it.
    """
    tunnels: Sequence[Mapping[str, Any]] = options.get("TunnelOptions") or ()
    if len(tunnels) > 2:
        return "A VPN connection has two tunnels: there are options for more."
    used = list(taken)
    for tunnel in tunnels:
        fault = tunnel_refusal(tunnel, used)
        if fault:
            return fault
        if tunnel.get("TunnelInsideCidr"):
            used.append(IPv4Network(tunnel["TunnelInsideCidr"]))
    return ""


def tunnel_refusal(tunnel: Mapping[str, Any], used: Iterable[IPv4Network] = ()) -> str:
    """The same for the options of one tunnel."""
    key, inside = tunnel.get("PreSharedKey"), tunnel.get("TunnelInsideCidr")
    if key is not None and _KEY.fullmatch(key) is None:
        return (
            "Invalid value for PreSharedKey. Allowed characters are alphanumeric characters, periods (.), and "
            "underscores (_). Must be between 8 and 64 characters in length and cannot start with zero (0)."
        )
    return "" if inside is None else _inside_refusal(inside, used)


def _inside_refusal(text: str, used: Iterable[IPv4Network]) -> str:
    try:
        network = IPv4Network(text)
    except ValueError:
        return f"Invalid value '{text}' for TunnelInsideCidr. It is no IPv4 prefix."
    if network.prefixlen != 30 or not network.subnet_of(INSIDE):
        return f"Invalid value '{text}' for TunnelInsideCidr. It must be a size /30 CIDR block from {INSIDE}."
    if network in _RESERVED:
        return f"Invalid value '{text}' for TunnelInsideCidr. The CIDR block is reserved and cannot be used."
    if network in used:
        return f"Invalid value '{text}' for TunnelInsideCidr. It is used already on this virtual private gateway."
    return ""


def unsupported(request: Mapping[str, Any]) -> str:
    """What of a request the stand-in cannot be, or an empty text: it would be answered, but not obeyed."""
    options: Mapping[str, Any] = request.get("Options") or {}
    if request.get("TransitGatewayId") or not request.get("VpnGatewayId"):
        return "a rehearsal's VPN connection ends at a virtual private gateway: give VpnGatewayId"
    if options.get("TunnelInsideIpVersion") == "ipv6" or options.get("OutsideIpAddressType", "PublicIpv4") != (
        "PublicIpv4"
    ):
        return "a rehearsal's VPN connection is of IPv4, inside and outside"
    return ""


def free_inside(choices: Iterator[int], used: Iterable[IPv4Network]) -> IPv4Network:
    """An inside network as AWS chooses one; `choices` are random numbers below 2^14."""
    taken = {*used, *_RESERVED}
    return next(
        network
        for network in (IPv4Network((int(INSIDE.network_address) + 4 * number, 30)) for number in choices)
        if network not in taken
    )


def of_account(
    connections: Iterable[Mapping[str, Any]],
    customers: Iterable[Mapping[str, Any]],
    gateways: Iterable[Mapping[str, Any]],
    prefixes: Mapping[str, IPv4Network],
) -> tuple[Vpn, ...]:
    """The connections of an account that exist, from what it describes; `prefixes` are those of VPCs by id."""
    customer = {one["CustomerGatewayId"]: one for one in customers}
    gateway = {one["VpnGatewayId"]: one for one in gateways}
    return tuple(
        _vpn(one, customer[one["CustomerGatewayId"]], gateway[one["VpnGatewayId"]], prefixes)
        for one in connections
        if one["State"] != "deleted" and one.get("VpnGatewayId") in gateway
    )


def _vpn(one: Any, customer: Any, gateway: Any, prefixes: Mapping[str, IPv4Network]) -> Vpn:
    options = one["Options"]
    attached = [vpc["VpcId"] for vpc in gateway.get("VpcAttachments", ()) if vpc["State"] == "attached"]
    return Vpn(
        id=one["VpnConnectionId"],
        tags={tag["Key"]: tag["Value"] for tag in one.get("Tags", ())},
        gateway=gateway["VpnGatewayId"],
        customer=IPv4Address(customer["IpAddress"]),
        customer_asn=int(customer["BgpAsn"]),
        asn=int(gateway["AmazonSideAsn"]),
        tunnels=tuple(map(tunnel_of, options["TunnelOptions"])),
        static=bool(options.get("StaticRoutesOnly")),
        routes=tuple(IPv4Network(route["DestinationCidrBlock"]) for route in one.get("Routes", ())),
        vpc=prefixes.get(attached[0]) if attached else None,
    )


def tunnel_of(options: Mapping[str, Any]) -> Tunnel:
    """A tunnel from its options, as a connection describes them."""
    return Tunnel(
        IPv4Address(options["OutsideIpAddress"]),
        IPv4Network(options["TunnelInsideCidr"]),
        options["PreSharedKey"],
        int(options.get("DPDTimeoutSeconds") or _DPD_S),
    )


def configuration(vpn: Vpn) -> str:
    """CustomerGatewayConfiguration as AWS writes it: the one place where it tells its addresses and keys."""
    tunnels = "".join(_tunnel(vpn, tunnel) for tunnel in vpn.tunnels)
    kind = "<vpn_connection_attributes>NoBGPVPNConnection</vpn_connection_attributes>" if vpn.static else ""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<vpn_connection id="{vpn.id}">\n  {kind}\n'
        f"  <vpn_gateway_id>{vpn.gateway}</vpn_gateway_id>\n  <vpn_connection_type>ipsec.1</vpn_connection_type>\n"
        f"{tunnels}</vpn_connection>\n"
    )


def _tunnel(vpn: Vpn, tunnel: Tunnel) -> str:
    customer = _end(vpn.customer, tunnel.customer, None if vpn.static else vpn.customer_asn)
    cloud = _end(tunnel.outside, tunnel.cloud, None if vpn.static else vpn.asn)
    return f"""  <ipsec_tunnel>
    <customer_gateway>{customer}</customer_gateway>
    <vpn_gateway>{cloud}</vpn_gateway>
    <ike>
      <authentication_protocol>sha1</authentication_protocol>
      <encryption_protocol>aes-128-cbc</encryption_protocol>
      <lifetime>28800</lifetime>
      <perfect_forward_secrecy>group2</perfect_forward_secrecy>
      <mode>main</mode>
      <pre_shared_key>{escape(tunnel.key)}</pre_shared_key>
    </ike>
    <ipsec>
      <protocol>esp</protocol>
      <authentication_protocol>hmac-sha1-96</authentication_protocol>
      <encryption_protocol>aes-128-cbc</encryption_protocol>
      <lifetime>3600</lifetime>
      <perfect_forward_secrecy>group2</perfect_forward_secrecy>
      <mode>tunnel</mode>
      <clear_df_bit>true</clear_df_bit>
      <fragmentation_before_encryption>true</fragmentation_before_encryption>
      <tcp_mss_adjustment>1379</tcp_mss_adjustment>
      <dead_peer_detection><interval>10</interval><retries>3</retries></dead_peer_detection>
    </ipsec>
  </ipsec_tunnel>
"""


def _end(outside: IPv4Address, inside: IPv4Address, asn: int | None) -> str:
    bgp = "" if asn is None else f"<bgp><asn>{asn}</asn><hold_time>{HOLD_S}</hold_time></bgp>"
    return (
        f"<tunnel_outside_address><ip_address>{outside}</ip_address></tunnel_outside_address>"
        f"<tunnel_inside_address><ip_address>{inside}</ip_address><network_mask>255.255.255.252</network_mask>"
        f"<network_cidr>30</network_cidr></tunnel_inside_address>{bgp}"
    )
