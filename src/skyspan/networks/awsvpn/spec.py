"""The settings of an aws-vpn stage: the facts of an aws_vpn_connection, and what can be said against them unseen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, ip_address, ip_network
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from skyspan.contracts.provider import Spec
from skyspan.model.composition import Seconds
from skyspan.model.secret import Secret
from skyspan.networks.addressing import Network
from skyspan.networks.awsvpn.example import EXAMPLE
from skyspan.networks.endpoints import Prefix, Rule, Service, parse_endpoint
from skyspan.networks.firewall import Admission, parse_admission
from skyspan.networks.ipsec.spec import Proposal
from skyspan.networks.peers import Site, conflicts
from skyspan.networks.written import PlainAddress

INSIDE = IPv4Network("169.254.0.0/16")
"""Where a cloud-managed VPN has its inside addresses (link-local, RFC 3927)."""

PSK_LENGTH = 8
"""The shortest key that an aws_vpn_connection takes (tunnel1_preshared_key: 8 to 64 letters, digits, . and _)."""

CLOUD = "the cloud"
"""What the other side is called in messages."""

_SECRET = "preshared_key"


def _picked(value: object) -> object:
    """Of all attributes of the resource those that are facts, in clear but for the keys: an output that is sensitive as
    a whole arrives with every text and number sealed."""
    if not isinstance(value, Mapping):
        return value
    found: dict[str, Any] = {}
    for name in (name for name in Facts.model_fields if name in value):
        item = value[name]
        if name.endswith(_SECRET):
            found[name] = Secret(item) if isinstance(item, str) else item
            continue
        plain = item.reveal() if isinstance(item, Secret) else item
        # What a connection without BGP lacks is an empty text there.
        found[name] = None if plain in ("", "null") else plain
    return found


def _key(secret: Secret) -> Secret:
    if len(secret.reveal()) < PSK_LENGTH:
        msg = f"the pre-shared key is too short: at least {PSK_LENGTH} characters"
        raise ValueError(msg)
    return secret


def _inside(text: str) -> str:
    address = ip_address(text)
    if address.version != 4 or address not in INSIDE:
        msg = f"{text} is no inside address of a tunnel: those are in {INSIDE}"
        raise ValueError(msg)
    return text


def _outside(text: str) -> str:
    if ip_address(text).version != 4:
        msg = f"{text} is no IPv4 address: tunnels with outside addresses of IPv6 are not supported"
        raise ValueError(msg)
    return text


Key = Annotated[Secret, AfterValidator(_key)]
Inside = Annotated[PlainAddress, AfterValidator(_inside)]
Outside = Annotated[PlainAddress, AfterValidator(_outside)]
Asn = Annotated[int, Field(ge=1, le=4294967294)]


@dataclass(frozen=True, slots=True)
class Tunnel:
    """One of both tunnels: `outside` is where the cloud listens, `own` and `peer` are the inside addresses."""

    number: int
    outside: str
    key: Secret
    own: str
    peer: str
    asn: int | None
    hold: int | None

    @property
    def network(self) -> IPv4Network:
        """The network of its inside addresses, of four addresses."""
        return IPv4Network((int(IPv4Address(self.peer)) & ~3, 30))


class Facts(Spec):
    """What an `aws_vpn_connection` says of its tunnels, by the names of its attributes; its others may be there."""

    tunnel1_address: Outside
    """Public address of the cloud's end of the first tunnel."""
    tunnel1_preshared_key: Key
    """Its key."""
    tunnel1_cgw_inside_address: Inside
    """The address of the customer gateway inside it."""
    tunnel1_vgw_inside_address: Inside
    """The address of the cloud inside it."""
    tunnel1_bgp_asn: Asn | None = None
    """The cloud's autonomous system, for `bgp`."""
    tunnel1_bgp_holdtime: int | None = None
    """Seconds without a word after which the cloud closes the BGP session."""
    tunnel2_address: Outside
    """The same of the second tunnel."""
    tunnel2_preshared_key: Key
    """The same of the second tunnel."""
    tunnel2_cgw_inside_address: Inside
    """The same of the second tunnel."""
    tunnel2_vgw_inside_address: Inside
    """The same of the second tunnel."""
    tunnel2_bgp_asn: Asn | None = None
    """The same of the second tunnel."""
    tunnel2_bgp_holdtime: int | None = None
    """The same of the second tunnel."""

    @property
    def tunnels(self) -> tuple[Tunnel, Tunnel]:
        """Both tunnels."""
        return self._tunnel(1), self._tunnel(2)

    def _tunnel(self, number: int) -> Tunnel:
        def fact(name: str) -> Any:
            return getattr(self, f"tunnel{number}_{name}")

        return Tunnel(
            number=number,
            outside=fact("address"),
            key=fact(_SECRET),
            own=fact("cgw_inside_address"),
            peer=fact("vgw_inside_address"),
            asn=fact("bgp_asn"),
            hold=fact("bgp_holdtime"),
        )


class Bgp(Spec):
    """The own side of the BGP sessions, one through each tunnel."""

    asn: Asn = 65000
    """The own autonomous system: `bgp_asn` of the `aws_customer_gateway`."""
    daemon: Literal["auto", "bird", "frr"] = "auto"
    """What speaks: BIRD 2 or FRR, an instance of its own; `auto` takes BIRD where it is installed."""


class AwsVpnSpec(Spec):
    """The customer gateway of an AWS Site-to-Site VPN: both tunnels of an `aws_vpn_connection`."""

    model_config = ConfigDict(json_schema_extra={"x-example": EXAMPLE})

    host: str
    """The host that is the customer gateway."""
    facts: Annotated[Facts, BeforeValidator(_picked)]
    """The `aws_vpn_connection` itself, as a Terraform output hands it over: `${{ stages.cloud.outputs.vpn }}`."""
    prefixes: tuple[Prefix, ...] = Field(min_length=1)
    """The networks behind the host, reachable from the cloud; with `bgp` these and no others are announced."""
    remote: tuple[Prefix, ...] = Field(min_length=1)
    """The networks in the cloud, such as the VPC's; with `bgp` these and no others are accepted."""
    id: PlainAddress | None = None
    """The host's public address, `ip_address` of the `aws_customer_gateway`; default: the host's address. Give it when
    the host is behind NAT."""
    bgp: Bgp | None = None
    """BGP through both tunnels: `{asn: 65000}`; default: none, for a connection with `static_routes_only = true`."""
    allow: tuple[Rule, ...] = ("icmp",)
    """What may pass, in both directions: `icmp`, `tcp/22`, `udp/5000-5010`, or `any`. The rest is refused."""
    mode: Literal["auto", "route", "policy", "userspace"] = "auto"
    """Who carries the packets: `route` is an XFRM interface of the kernel per tunnel (only with `bgp`), `policy` the
    kernel without interfaces (only without `bgp`), `userspace` strongSwan's libipsec, slower than either; `auto` takes
    the kernel where it can."""
    mtu: int = Field(default=1399, ge=576, le=1446)
    """Largest packet inside a tunnel, in bytes; longer TCP segments are clamped. 1399 fits each cipher of AWS."""
    proposals: tuple[Proposal, ...] = ("aes256gcm16-prfsha512-ecp384", "aes256-sha256-ecp256", "aes256-sha256-modp2048")
    """What IKE may agree on, the best first, in strongSwan's words; AWS knows no curve25519."""
    esp_proposals: tuple[Proposal, ...] = ("aes256gcm16-ecp384", "aes256-sha256-ecp256", "aes256-sha256-modp2048")
    """The same for the packets themselves."""
    rekey: Seconds = 2700.0
    """After how many seconds the packets get new keys; IKE itself after four times that. To be less than the
    `phase2_lifetime_seconds` (3600) and a quarter of the `phase1_lifetime_seconds` (28800) of the tunnels."""
    dpd: Seconds = Field(default=5.0, ge=1.0)
    """After how many seconds of silence the host asks whether the cloud is still there."""
    ping: PlainAddress | None = None
    """An address in the cloud that answers pings: readiness and the watch ask it, through whichever tunnel carries."""
    expect: tuple[Service, ...] = ()
    """Services in the cloud (`address:port`, TCP) that the link is only ready with: each is dialled from the host."""
    ready_within: Seconds = 60.0
    """How long the tunnels may take to carry traffic."""
    confirm_within: Annotated[Seconds, Field(ge=1)] = 60.0
    """A host whose tunnel was changed puts firewall, connection and routes back as they were after so long, unless
    Skyspan reaches it again and confirms: a mistake, or the end of Skyspan itself, locks nobody out."""

    @property
    def admissions(self) -> tuple[Admission, ...]:
        """The rules of `allow`."""
        return tuple(parse_admission(rule) for rule in self.allow)

    @property
    def here(self) -> tuple[Network, ...]:
        """`prefixes` as networks."""
        return tuple(ip_network(prefix) for prefix in self.prefixes)

    @property
    def there(self) -> tuple[Network, ...]:
        """`remote` as networks."""
        return tuple(ip_network(prefix) for prefix in self.remote)

    @property
    def auth(self) -> str:
        """Both sides know each other by a shared key."""
        return "psk"

    @property
    def ca(self) -> str | None:
        """There is none."""
        return None

    @model_validator(mode="after")
    def _fits(self) -> AwsVpnSpec:
        problems = [*_fact_problems(self.facts.tunnels), *self._prefix_problems(), *self._routing_problems()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _prefix_problems(self) -> Iterator[str]:
        inside = [tunnel.network for tunnel in self.facts.tunnels]
        yield from conflicts([Site(self.host, self.here, self.id or ""), Site(CLOUD, self.there)], inside)
        for tunnel in self.facts.tunnels:
            for net in (*self.here, *self.there):
                if ip_address(tunnel.outside) in net:
                    yield f"tunnel{tunnel.number}_address {tunnel.outside} lies inside {net}, which the tunnel carries"
        for net in (*self.here, *self.there):
            if net.version == 6:
                yield f"{net}: the tunnels carry IPv4 only"
        for text in (*(parse_endpoint(service)[0] for service in self.expect), *((self.ping,) if self.ping else ())):
            if not any(ip_address(text) in net for net in self.there):
                yield f"{text} is in none of the `remote` networks"

    def _routing_problems(self) -> Iterator[str]:
        if self.bgp is None:
            if self.mode == "route":
                yield "`mode: route` needs `bgp`: routes over two interfaces have to follow the tunnel that is up"
            return
        if self.mode == "policy":
            yield "`mode: policy` has no interface that BGP could speak over: use `route` or `userspace`"
        for tunnel in self.facts.tunnels:
            if tunnel.asn is None:
                yield (
                    f"the facts have no tunnel{tunnel.number}_bgp_asn: is `static_routes_only` set? "
                    "Then leave out `bgp`"
                )
            elif tunnel.asn == self.bgp.asn:
                yield f"`bgp.asn` is {tunnel.asn} as the cloud's own: give that of the aws_customer_gateway"


def _fact_problems(tunnels: tuple[Tunnel, Tunnel]) -> Iterator[str]:
    one, other = tunnels
    if one.outside == other.outside:
        yield f"both tunnels have the outside address {one.outside}: they cannot be told apart"
    if one.network == other.network:
        yield f"both tunnels have their inside addresses in {one.network}: they cannot be told apart"
    for tunnel in tunnels:
        name = f"tunnel{tunnel.number}"
        if tunnel.own == tunnel.peer:
            yield f"{name}_cgw_inside_address and {name}_vgw_inside_address are both {tunnel.own}"
        elif IPv4Address(tunnel.own) not in tunnel.network:
            yield (
                f"{name}_cgw_inside_address {tunnel.own} and {name}_vgw_inside_address {tunnel.peer} are not in one "
                "network of four addresses"
            )
        if tunnel.hold is not None and tunnel.hold < 3:
            yield f"{name}_bgp_holdtime {tunnel.hold} is too short for BGP, which needs 3 seconds"
