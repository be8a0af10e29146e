"""The settings of an ipsec stage, and what can be said against them without looking at a host."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address, ip_interface, ip_network
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from skyspan.contracts.provider import Spec
from skyspan.model.composition import Seconds
from skyspan.model.secret import Secret
from skyspan.networks.addressing import Network
from skyspan.networks.endpoints import MINIMUM_MTU_V6, Endpoint, Prefix, Rule, parse_endpoint
from skyspan.networks.firewall import Admission, parse_admission
from skyspan.networks.peers import Site, conflicts

Plane: TypeAlias = Literal["route", "policy", "userspace"]
"""Who carries the packets: the kernel through an XFRM interface, the kernel by policies alone, or strongSwan's own
libipsec through a TUN device."""

PSK_LENGTH = 16
"""Fewer characters of a shared key are refused: it could be guessed from one recorded handshake (RFC 7296, 5)."""

_ID = re.compile(r"[A-Za-z0-9]([A-Za-z0-9@_.:-]{0,251}[A-Za-z0-9])?")
_PROPOSAL = re.compile(r"[a-z0-9_]+(-[a-z0-9_]+)*")


def _checked(check: Callable[[str], object]) -> AfterValidator:
    def validate(text: str) -> str:
        check(text)
        return text

    return AfterValidator(validate)


def _ike_id(text: str) -> None:
    if _ID.fullmatch(text) is None:
        msg = f"{text!r} is no IKE identity: a name such as gw.example.org, or an IP address"
        raise ValueError(msg)


def _proposal(text: str) -> None:
    if _PROPOSAL.fullmatch(text) is None:
        msg = f"{text!r} is no proposal such as aes256-sha256-curve25519"
        raise ValueError(msg)


def _service(text: str) -> None:
    address, port = parse_endpoint(text)
    ip_address(address)
    if port is None:
        msg = f"{text!r} has no port: write address:port"
        raise ValueError(msg)


def _tunnel(text: str) -> None:
    try:
        network = ip_network(text)
    except ValueError as error:
        msg = f"{text!r} is no network such as 10.254.0.0/31"
        raise ValueError(msg) from error
    if network.num_addresses < 2:
        msg = f"{text} has no room for two tunnel addresses"
        raise ValueError(msg)


def _shared_key(secret: Secret) -> Secret:
    if len(secret.reveal()) < PSK_LENGTH:
        msg = f"the shared key is too short: at least {PSK_LENGTH} characters, at random"
        raise ValueError(msg)
    return secret


def _pem(text: str) -> None:
    if "-----BEGIN CERTIFICATE-----" not in text:
        msg = "no certificate: PEM text that begins with -----BEGIN CERTIFICATE-----"
        raise ValueError(msg)


SharedKey: TypeAlias = Annotated[Secret, AfterValidator(_shared_key)]
Proposal: TypeAlias = Annotated[str, _checked(_proposal)]


class End(Spec):
    """One side of the link: a gateway and what is behind it."""

    host: str
    """The host that is this side's gateway."""
    prefixes: tuple[Prefix, ...] = Field(min_length=1)
    """The networks behind it, reachable from the other side."""
    id: Annotated[str, _checked(_ike_id)] | None = None
    """Its IKE identity; default: the host's name and the link's, so that two links never share one."""
    endpoint: Endpoint | None = None
    """Where the other side reaches it: an address or a name, with `:PORT` when port 500 is forwarded under another;
    default: the host's address."""
    nat: bool = False
    """It is behind NAT: it calls, and the other side waits for it."""
    address: Annotated[str, _checked(ip_interface)] | None = None
    """Its address inside the tunnel; default: from `tunnel`."""
    certificate: Annotated[str, _checked(_pem)] | None = None
    """Its certificate as PEM text, with `auth: certificates`; default: one is issued by the link's own CA and renewed
    in time."""
    key: Secret | None = None
    """The private key (PEM) of `certificate`."""

    @property
    def networks(self) -> tuple[Network, ...]:
        """Its prefixes as networks."""
        return tuple(ip_network(prefix) for prefix in self.prefixes)

    @model_validator(mode="after")
    def _key_belongs(self) -> End:
        if (self.certificate is None) != (self.key is None):
            msg = f"{self.host}: `certificate` and `key` belong together: give both or none"
            raise ValueError(msg)
        return self


class IpsecSpec(Spec):
    """A link between two gateways and the networks behind them, by IKEv2 and ESP (strongSwan)."""

    between: tuple[End, ...] = Field(min_length=2, max_length=2)
    """The two sides."""
    auth: Literal["psk", "certificates"] = "psk"
    """How the gateways know each other: by a shared key, or by certificates."""
    psk: SharedKey | None = None
    """The shared key, as an expression over a secret; default: one is made and kept sealed."""
    ca: Annotated[str, _checked(_pem)] | None = None
    """The CA (PEM text) that signed both given certificates; default: a CA of the link's own, its key kept sealed."""
    certificate_days: int = Field(default=90, ge=1, le=825)
    """How many days an issued certificate lasts; it is renewed by the first `up` in the last third of them."""
    allow: tuple[Rule, ...] = ("icmp",)
    """What may pass, in both directions: `icmp`, `tcp/22`, `udp/5000-5010`, or `any`. The rest is refused."""
    mode: Literal["auto", "route", "policy", "userspace"] = "auto"
    """Who carries the packets: `route` is an XFRM interface of the kernel, `policy` the kernel without an interface,
    `userspace` strongSwan's libipsec, slower than either; `auto` takes the first of them that each gateway has."""
    mtu: int = Field(default=1400, ge=576, le=65455)
    """Largest packet inside the tunnel, in bytes; 1400 fits an underlay of 1500. `userspace` carries no more."""
    proposals: tuple[Proposal, ...] = ("aes256gcm16-prfsha256-curve25519", "aes256-sha256-curve25519")
    """What IKE may agree on, the best first, in strongSwan's words."""
    esp_proposals: tuple[Proposal, ...] = ("aes256gcm16-curve25519", "aes256-sha256-curve25519")
    """The same for the packets themselves."""
    rekey: Seconds = 3600.0
    """After how many seconds the packets get new keys; IKE itself after four times that."""
    dpd: Seconds = Field(default=5.0, ge=1.0)
    """After how many seconds of silence a side asks whether the other is still there."""
    tunnel: Annotated[str, _checked(_tunnel)] | None = None
    """Network of the tunnel's own addresses; default: a pair out of 10.255.0.0/16 (100.127.0.0/16 when that is in use,
    fd5b:5b:5b::/48 for IPv6), chosen by the names of deployment and stage."""
    expect: tuple[Annotated[str, _checked(_service)], ...] = ()
    """Services (`address:port`, TCP) that the link is only ready with: each is dialled from the gateway of the other
    side."""
    ready_within: Seconds = 30.0
    """How long the link may take to carry traffic."""
    confirm_within: Annotated[Seconds, Field(ge=1)] = 60.0
    """A gateway whose end was changed puts firewall, connection and routes back as they were after so long, unless
    Skyspan reaches it again and confirms: a mistake, or the end of Skyspan itself, locks nobody out."""

    @property
    def admissions(self) -> tuple[Admission, ...]:
        """The rules of `allow`."""
        return tuple(parse_admission(rule) for rule in self.allow)

    @model_validator(mode="after")
    def _ends_fit(self) -> IpsecSpec:
        problems = [*self._addressing(), *self._authentication()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _addressing(self) -> list[str]:
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
        return problems

    def _authentication(self) -> list[str]:
        problems = []
        one, other = self.between
        given = [end for end in self.between if end.certificate is not None]
        if one.id is not None and one.id == other.id:
            problems.append(f"both sides have the identity {one.id}: each needs its own")
        if self.auth == "psk" and (given or self.ca is not None):
            problems.append("certificates are for `auth: certificates`")
        if self.auth == "certificates" and self.psk is not None:
            problems.append("`psk` is for `auth: psk`")
        if self.auth == "certificates" and len(given) + (self.ca is not None) not in (0, 3):
            problems.append("give `ca` and both sides' `certificate`, or none of them")
        problems += [
            f"{end.host}: a given certificate needs its `id`, one of the certificate's names"
            for end in given
            if end.id is None
        ]
        return problems
