"""The settings of a wireguard stage, and what can be said against them without looking at a host."""

from __future__ import annotations

import base64
import binascii
import re
from ipaddress import ip_address, ip_interface, ip_network
from itertools import combinations
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from skyspan.contracts.provider import Spec
from skyspan.model.composition import Seconds
from skyspan.model.secret import Secret
from skyspan.networks.addressing import INTERFACE_LENGTH, Network
from skyspan.networks.endpoints import (
    MINIMUM_MTU_V6,
    Endpoint,
    Prefix,
    Rule,
    Service,
    parse_endpoint,
    parse_prefix,
)
from skyspan.networks.firewall import Admission, parse_admission
from skyspan.networks.peers import Site, conflicts
from skyspan.networks.written import checked

DEFAULT_PORT = 51820
"""The port that WireGuard's own documentation uses."""

MOST_ENDS = 1000
"""More sides than that belong into several links."""

_INTERFACE = re.compile(rf"[A-Za-z][A-Za-z0-9_-]{{0,{INTERFACE_LENGTH - 1}}}")


def _tunnel(text: str) -> None:
    if parse_prefix(text).num_addresses < 2:
        msg = f"{text} has no room for two tunnel addresses"
        raise ValueError(msg)


def key_bytes(text: str) -> bytes:
    """The 32 bytes of a key as `wg` writes it (44 characters of base64); raises ValueError that shows nothing of it."""
    try:
        raw = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 32:
        msg = "no WireGuard key: 32 bytes in base64, as `wg genkey` and `wg pubkey` print them"
        raise ValueError(msg)
    return raw


def _secret_key(secret: Secret) -> Secret:
    key_bytes(secret.reveal())
    return secret


def _interface_name(text: str) -> None:
    if _INTERFACE.fullmatch(text) is None:
        msg = f"{text!r} is no interface name: a letter, then letters, digits, - and _, {INTERFACE_LENGTH} in all"
        raise ValueError(msg)


Key: TypeAlias = Annotated[Secret, AfterValidator(_secret_key)]


class End(Spec):
    """One side of the link: a gateway and what is behind it."""

    host: str
    """The host that is this side's gateway."""
    prefixes: tuple[Prefix, ...] = ()
    """The networks behind it, reachable from the other sides; none joins the gateway itself only."""
    endpoint: Endpoint | None = None
    """Where the other sides reach it: an address or a name, with `:PORT` when a forwarded port differs; default: the
    host's address."""
    port: int = Field(default=DEFAULT_PORT, ge=1, le=65535)
    """UDP port it listens on."""
    key: Key | None = None
    """Its private key, as an expression over a secret or an output; default: one is made and kept sealed."""
    public_key: Annotated[str, checked(key_bytes)] | None = None
    """The public key that belongs to `key`; given, it must fit."""
    address: Annotated[str, checked(ip_interface)] | None = None
    """Its address inside the tunnel; default: from `tunnel`."""
    nat: bool = False
    """It is behind NAT: the other sides wait for it, and it keeps the way open."""

    @property
    def networks(self) -> tuple[Network, ...]:
        """Its prefixes as networks."""
        return tuple(ip_network(prefix) for prefix in self.prefixes)

    @model_validator(mode="after")
    def _key_belongs(self) -> End:
        if self.public_key is not None and self.key is None:
            msg = f"{self.host}: `public_key` needs `key`, the private key that belongs to it"
            raise ValueError(msg)
        return self


class WireguardSpec(Spec):
    """A link between gateways and the networks behind them: two, a hub and its spokes, or a mesh."""

    between: tuple[End, ...] = Field(min_length=2, max_length=MOST_ENDS)
    """The sides. More than two are joined each with each, unless one is the `hub`."""
    hub: str | None = None
    """The host of `between` that all the others are joined to, and to it alone."""
    spokes_meet: bool = False
    """With a `hub`: its spokes reach each other as well, through it."""
    allow: tuple[Rule, ...] = ("icmp",)
    """What may pass, in both directions: `icmp`, `tcp/22`, `udp/5000-5010`, or `any`. The rest is refused."""
    mtu: int = Field(default=1420, ge=576, le=65455)
    """Largest packet inside the tunnel, in bytes; 1420 fits an underlay of 1500."""
    keepalive: int = Field(default=25, ge=0, le=65535)
    """Seconds between keepalives, 0 for none; sent by the sides behind NAT, by both when none is."""
    plane: Literal["auto", "kernel", "userspace"] = "auto"
    """Who carries the packets: the kernel, or wireguard-go; `auto` takes the kernel where it can."""
    tunnel: Annotated[str, checked(_tunnel)] | None = None
    """Network of the tunnel's own addresses; default: a pair out of 10.255.0.0/16, for more than two sides a /22 out of
    10.254.0.0/16 (100.127.0.0/16 and 100.126.0.0/16 where those are in use; for IPv6 out of fd5b:5b:5b::/48 and
    fd5b:5b:5c::/48), chosen by the names of deployment and stage."""
    routes: Literal["declared", "none"] = "declared"
    """Which routes the link makes on the gateways: to the prefixes of the other sides, or `none`, so that BGP, a
    `routes` stage or a failover owns them. What may pass (WireGuard's AllowedIPs and `allow`) is as declared in either
    case, and what the tunnel's own addresses need is routed."""
    interface: Annotated[str, checked(_interface_name)] | None = None
    """Name of the interface on every gateway; default: `sky-` and a digest of deployment and stage."""
    psk: bool | Key = True
    """A key shared by two sides on top of their own: true to have one made for each two and kept sealed, false for
    none, or the key itself, then the same for all."""
    expect: tuple[Service, ...] = ()
    """Services (`address:port`, TCP) that the link is only ready with: each is dialled from the gateway of another
    side."""
    ready_within: Seconds = 30.0
    """How long the link may take to carry traffic."""
    confirm_within: Annotated[Seconds, Field(ge=1)] = 60.0
    """A gateway whose firewall was changed puts the former one back after so long, unless Skyspan reaches it again and
    confirms: a mistake, or the end of Skyspan itself, locks nobody out."""

    @property
    def admissions(self) -> tuple[Admission, ...]:
        """The rules of `allow`."""
        return tuple(parse_admission(rule) for rule in self.allow)

    def joined(self, one: End, other: End) -> bool:
        """Whether these two have a tunnel of their own."""
        return one is not other and (self.hub is None or self.hub in (one.host, other.host))

    def _carries_ipv6(self) -> bool:
        inside = [text for text in (self.tunnel, *(end.address for end in self.between)) if text is not None]
        return any(ip_interface(text).version == 6 for text in inside) or any(
            net.version == 6 for end in self.between for net in end.networks
        )

    @model_validator(mode="after")
    def _ends_fit(self) -> WireguardSpec:
        problems = list(conflicts([Site(end.host, end.networks, end.endpoint or "") for end in self.between]))
        names = [end.host for end in self.between]
        problems += [
            f"{name} is more than one side: a link joins different hosts"
            for name in dict.fromkeys(names)
            if names.count(name) > 1
        ]
        if self.hub is not None and self.hub not in names:
            problems.append(f"the hub {self.hub} is none of the sides: {', '.join(names)}")
        if self.spokes_meet and self.hub is None:
            problems.append("`spokes_meet` is for a link with a `hub`: without one all sides meet anyway")
        problems += [
            f"{one.host} and {other.host} are both behind NAT, so neither can call the other: give one an `endpoint`"
            for one, other in combinations(self.between, 2)
            if self.joined(one, other) and all(end.nat and end.endpoint is None for end in (one, other))
        ]
        given = [end.address for end in self.between if end.address is not None]
        if given and len(given) < len(self.between):
            problems.append("give `address` for every side or for none")
        elif len({ip_interface(text).ip for text in given}) < len(given):
            problems.append("two sides have the same `address`")
        if self.tunnel is not None and not given:
            room = ip_network(self.tunnel).num_addresses
            if (room - 2 if room > 2 else room) < len(self.between):
                problems.append(f"{self.tunnel} has no room for {len(self.between)} tunnel addresses")
        if self.mtu < MINIMUM_MTU_V6 and self._carries_ipv6():
            problems.append(f"an MTU of {self.mtu} is too small for IPv6, which needs {MINIMUM_MTU_V6}")
        for service in self.expect:
            address = ip_address(parse_endpoint(service)[0])
            if not any(address in net for end in self.between for net in end.networks):
                problems.append(f"expected service {service} is behind no side")
        if problems:
            raise ValueError("; ".join(problems))
        return self
