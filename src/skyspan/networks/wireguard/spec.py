"""The settings of a wireguard stage, and what can be said against them without looking at a host."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from ipaddress import ip_address, ip_interface, ip_network
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from skyspan.contracts.provider import Spec
from skyspan.model.composition import Seconds
from skyspan.model.secret import Secret
from skyspan.networks.addressing import INTERFACE_LENGTH, Network
from skyspan.networks.firewall import Admission, parse_admission
from skyspan.networks.peers import Site, conflicts

DEFAULT_PORT = 51820
"""The port that WireGuard's own documentation uses."""

MINIMUM_MTU_V6 = 1280
"""What every IPv6 link must carry (RFC 8200 section 5)."""

_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252})?")
_INTERFACE = re.compile(rf"[A-Za-z][A-Za-z0-9_-]{{0,{INTERFACE_LENGTH - 1}}}")


def _checked(check: Callable[[str], object]) -> AfterValidator:
    def validate(text: str) -> str:
        check(text)
        return text

    return AfterValidator(validate)


def _prefix(text: str) -> Network:
    try:
        network = ip_network(text)
    except ValueError as error:
        try:
            hint = f"; did you mean {ip_network(text, strict=False)}?" if "/" in text else ""
        except ValueError:
            hint = ""
        msg = f"{text!r} is no network prefix such as 10.20.0.0/16{hint}"
        raise ValueError(msg) from error
    if network.prefixlen == 0:
        msg = f"{text} is everything: a link joins sites and does not take the default route"
        raise ValueError(msg)
    return network


def _tunnel(text: str) -> None:
    if _prefix(text).num_addresses < 2:
        msg = f"{text} has no room for two tunnel addresses"
        raise ValueError(msg)


def parse_endpoint(text: str) -> tuple[str, int | None]:
    """Address or name, and port when one is given, of `gw.example.org`, `192.0.2.1:51820` or `[2001:db8::1]:51820`."""
    bare = text
    port: int | None = None
    if text.startswith("["):
        bare, _, rest = text[1:].partition("]")
        port = _port(text, rest.removeprefix(":")) if rest else None
    elif text.count(":") == 1:
        bare, _, rest = text.partition(":")
        port = _port(text, rest)
    try:
        return str(ip_address(bare)), port
    except ValueError:
        if _HOST.fullmatch(bare) is None:
            msg = f"{text!r} is no address: write an IP address or a name, with :PORT if it differs (IPv6 in brackets)"
            raise ValueError(msg) from None
    return bare, port


def _port(text: str, digits: str) -> int:
    if not digits.isdecimal() or not 0 < int(digits) < 65536:
        msg = f"{text!r} does not end in a port between 1 and 65535"
        raise ValueError(msg)
    return int(digits)


def _service(text: str) -> None:
    address, port = parse_endpoint(text)
    ip_address(address)
    if port is None:
        msg = f"{text!r} has no port: write address:port"
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


Endpoint: TypeAlias = Annotated[str, _checked(parse_endpoint)]
Prefix: TypeAlias = Annotated[str, _checked(_prefix)]
Key: TypeAlias = Annotated[Secret, AfterValidator(_secret_key)]
Rule: TypeAlias = Annotated[str, _checked(parse_admission)]


class End(Spec):
    """One side of the link: a gateway and what is behind it."""

    host: str
    """The host that is this side's gateway."""
    prefixes: tuple[Prefix, ...] = Field(min_length=1)
    """The networks behind it, reachable from the other side."""
    endpoint: Endpoint | None = None
    """Where the other side reaches it: an address or a name, with `:PORT` when a forwarded port differs; default: the
    host's address."""
    port: int = Field(default=DEFAULT_PORT, ge=1, le=65535)
    """UDP port it listens on."""
    key: Key | None = None
    """Its private key, as an expression over a secret or an output; default: one is made and kept sealed."""
    public_key: Annotated[str, _checked(key_bytes)] | None = None
    """The public key that belongs to `key`; given, it must fit."""
    address: Annotated[str, _checked(ip_interface)] | None = None
    """Its address inside the tunnel; default: from `tunnel`."""
    nat: bool = False
    """It is behind NAT: the other side waits for it, and it keeps the way open."""

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
    """A link between two gateways and the networks behind them."""

    between: tuple[End, ...] = Field(min_length=2, max_length=2)
    """The two sides."""
    allow: tuple[Rule, ...] = ("icmp",)
    """What may pass, in both directions: `icmp`, `tcp/22`, `udp/5000-5010`, or `any`. The rest is refused."""
    mtu: int = Field(default=1420, ge=576, le=65455)
    """Largest packet inside the tunnel, in bytes; 1420 fits an underlay of 1500."""
    keepalive: int = Field(default=25, ge=0, le=65535)
    """Seconds between keepalives, 0 for none; sent by the sides behind NAT, by both when none is."""
    plane: Literal["auto", "kernel", "userspace"] = "auto"
    """Who carries the packets: the kernel, or wireguard-go; `auto` takes the kernel where it can."""
    tunnel: Annotated[str, _checked(_tunnel)] | None = None
    """Network of the tunnel's own addresses; default: a pair out of 10.255.0.0/16 (100.127.0.0/16 when that is in use,
    fd5b:5b:5b::/48 for IPv6), chosen by the names of deployment and stage."""
    interface: Annotated[str, _checked(_interface_name)] | None = None
    """Name of the interface on both gateways; default: `sky-` and a digest of deployment and stage."""
    psk: bool | Key = True
    """A key shared by both sides on top of their own: true to have one made and kept sealed, false for none, or the
    key itself."""
    expect: tuple[Annotated[str, _checked(_service)], ...] = ()
    """Services (`address:port`, TCP) that the link is only ready with: each is dialled from the gateway of the other
    side."""
    ready_within: Seconds = 30.0
    """How long the link may take to carry traffic."""

    @property
    def admissions(self) -> tuple[Admission, ...]:
        """The rules of `allow`."""
        return tuple(parse_admission(rule) for rule in self.allow)

    @model_validator(mode="after")
    def _ends_fit(self) -> WireguardSpec:
        problems = list(conflicts([Site(end.host, end.networks, end.endpoint or "") for end in self.between]))
        one, other = self.between
        if one.host == other.host:
            problems.append(f"both sides are {one.host}: a link joins two hosts")
        if all(end.nat and end.endpoint is None for end in self.between):
            problems.append("both sides are behind NAT, so neither can call the other: give one an `endpoint`")
        if (one.address is None) != (other.address is None):
            problems.append("give `address` for both sides or for none")
        if self.mtu < MINIMUM_MTU_V6 and any(net.version == 6 for end in self.between for net in end.networks):
            problems.append(f"an MTU of {self.mtu} is too small for IPv6, which needs {MINIMUM_MTU_V6}")
        for service in self.expect:
            address = ip_address(parse_endpoint(service)[0])
            if not any(address in net for end in self.between for net in end.networks):
                problems.append(f"expected service {service} is behind neither side")
        if problems:
            raise ValueError("; ".join(problems))
        return self
