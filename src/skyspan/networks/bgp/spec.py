"""The settings of a bgp stage, and what can be said against them without looking at a host."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from ipaddress import ip_interface, ip_network
from itertools import combinations
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from skyspan.contracts.provider import Spec
from skyspan.model.address import is_name
from skyspan.model.composition import Seconds
from skyspan.model.secret import Secret
from skyspan.networks.addressing import Network
from skyspan.networks.written import Device, InsideAddress, PlainAddress, Prefix, checked

BGP_PORT = 179
"""RFC 4271 section 8.2.1."""

PASSWORD_LENGTH = 80
"""Longest key of the TCP MD5 option on Linux (tcp(7), TCP_MD5SIG)."""


def _router_id(text: str) -> None:
    address = ip_interface(text).ip
    if address.version != 4 or int(address) == 0:
        msg = f"{text!r} is no router id: write it as an IPv4 address other than 0.0.0.0"
        raise ValueError(msg)


def _name(text: str) -> None:
    if not is_name(text):
        msg = f"{text!r} is no name of a host: a lowercase letter, then lowercase letters, digits, - and _"
        raise ValueError(msg)


def _password(secret: Secret) -> Secret:
    text = secret.reveal()
    if not 0 < len(text) <= PASSWORD_LENGTH or not all(
        " " < letter <= "~" and letter not in "\"'\\" for letter in text
    ):
        msg = f"a password has 1 to {PASSWORD_LENGTH} visible ASCII characters, without quotes and backslashes"
        raise ValueError(msg)
    return secret


Password: TypeAlias = Annotated[Secret, AfterValidator(_password)]


class Speaker(Spec):
    """One side: a host that announces prefixes."""

    host: Annotated[str, checked(_name)]
    """The host that speaks; a name of its own when it is not `managed`."""
    asn: int = Field(ge=1, le=4294967294)
    """Its autonomous system; 64512 to 65534 and 4200000000 to 4294967294 are for private use."""
    announce: tuple[Prefix, ...] = ()
    """The prefixes it announces: these and no others leave it, and the other sides accept these and no others."""
    daemon: Literal["auto", "bird", "frr"] = "auto"
    """What speaks there: BIRD 2 or FRR; `auto` takes BIRD where it is installed. It gets an instance of its own: BIRD
    beside any other routing daemon of the host, FRR only where no other FRR runs."""
    router_id: Annotated[str, checked(_router_id)] | None = None
    """Its router id; default: its IPv4 address inside the link."""
    address: InsideAddress | tuple[InsideAddress, ...] | None = None
    """Its address inside the link, or one per IP version; default: from `over`."""
    transit: bool = False
    """Pass on what one neighbour announces to the others: for the hub, so that spokes learn each other's prefixes."""
    managed: bool = True
    """False for a router that somebody else configures: only the other sides are made."""

    @property
    def networks(self) -> tuple[Network, ...]:
        """Its prefixes as networks."""
        return tuple(ip_network(prefix) for prefix in self.announce)


class Over(Spec):
    """The link that sessions run over: the outputs `interface` and `addresses` of its stage."""

    interface: Device | dict[str, Device] | None = None
    """The link's interface, or one by host; default: the one that has the address."""
    addresses: dict[str, tuple[InsideAddress, ...]] = Field(default_factory=dict)
    """By host, its addresses inside the link."""

    def device(self, host: str) -> str:
        """The interface on a host; empty when nobody said."""
        if isinstance(self.interface, Mapping):
            return self.interface.get(host, "")
        return self.interface or ""


class Session(Spec):
    """Two speakers that talk to each other."""

    between: tuple[str, str]
    """Their hosts."""
    over: Over | None = None
    """The link it runs over; default: the stage's."""
    password: Password | None = None
    """A password for its TCP connection (RFC 2385); default: the stage's."""
    multihop: int | None = Field(default=None, ge=1, le=255)
    """Most hops between the two, for speakers that share no link; default: the stage's."""


class Bfd(Spec):
    """How quickly a dead link is noticed: after `interval` times `multiplier`."""

    interval: Seconds = 0.3
    """Between packets; less than 300ms flaps on lossy links and on userspace tunnels."""
    multiplier: int = Field(default=4, ge=1, le=255)
    """How many may be lost."""

    @model_validator(mode="after")
    def _feasible(self) -> Bfd:
        if not 0.01 <= self.interval <= 60:
            msg = "`interval` is between 10ms and 60s"
            raise ValueError(msg)
        return self

    @property
    def milliseconds(self) -> int:
        """The interval as the daemons take it."""
        return round(self.interval * 1000)


class BgpSpec(Spec):
    """BGP sessions between hosts, over a link that exists already."""

    speakers: tuple[Speaker, ...] = Field(min_length=2)
    """The sides."""
    over: Over | None = None
    """The link all sessions run over: `{interface: "${{ stages.link.outputs.interface }}", addresses:
    "${{ stages.link.outputs.addresses }}"}`. The link must admit `tcp/179` and, for BFD, `udp/3784`, and carry all
    announced prefixes (for WireGuard: its `prefixes` must cover them)."""
    sessions: tuple[Session, ...] = ()
    """Who talks to whom; default, for two speakers: these two."""
    password: Password | None = None
    """A password for every session (RFC 2385)."""
    multihop: int | None = Field(default=None, ge=1, le=255)
    """Most hops between two speakers; default: they share a link."""
    bfd: bool | Bfd = Bfd()
    """Bidirectional forwarding detection (RFC 5880): true for its defaults, false for none."""
    hold: int = Field(default=30, ge=3, le=65535)
    """Seconds without a word after which a session is closed; keepalives go three times as often."""
    max_prefixes: int | None = Field(default=None, ge=1)
    """Most prefixes a neighbour may send, refused ones too, before its session is closed; default: 100 more than it is
    to announce. FRR 8 counts only when a prefix comes that it accepts."""
    port: int = Field(default=BGP_PORT, ge=1, le=65535)
    """TCP port; another one where 179 belongs to another daemon of the host."""
    probes: dict[str, PlainAddress] = Field(default_factory=dict)
    """By host, the address behind it that readiness pings; default: the host's own address inside what it announces,
    else inside the link."""
    ready_within: Seconds = 60.0
    """How long the sessions may take to come up and to carry traffic."""

    @property
    def pairs(self) -> tuple[Session, ...]:
        """The sessions, the default one too."""
        if self.sessions or len(self.speakers) != 2:
            return self.sessions
        return (Session(between=(self.speakers[0].host, self.speakers[1].host)),)

    @property
    def detection(self) -> Bfd | None:
        """BFD's settings; None for none."""
        if isinstance(self.bfd, Bfd):
            return self.bfd
        return Bfd() if self.bfd else None

    def speaker(self, host: str) -> Speaker:
        """The speaker of that host."""
        return next(speaker for speaker in self.speakers if speaker.host == host)

    @model_validator(mode="after")
    def _fits(self) -> BgpSpec:
        problems = list(_name_problems(self)) or [*_announcement_problems(self), *_transit_problems(self)]
        if problems:
            raise ValueError("; ".join(problems))
        return self


def _name_problems(spec: BgpSpec) -> Iterator[str]:
    counted = Counter(speaker.host for speaker in spec.speakers)
    yield from (f"{host} is named {count} times as speaker" for host, count in counted.items() if count > 1)
    if not any(speaker.managed for speaker in spec.speakers):
        yield "no speaker is managed: there is nothing to make"
    if not spec.sessions and len(spec.speakers) > 2:
        yield "with more than two speakers say who talks to whom: `sessions: [{between: [hub, spoke]}, …]`"
    for session in spec.sessions:
        one, other = session.between
        if one == other:
            yield f"a session joins two speakers, not {one} with itself"
        unknown = [host for host in session.between if host not in counted]
        yield from (f"the session {one} – {other} names {host}, which is no speaker" for host in unknown)
    if counted:
        spoken = {host for session in spec.pairs for host in session.between}
        yield from (f"{host} talks to nobody" for host in counted if spec.sessions and host not in spoken)
    yield from (f"`probes` names {host}, which is no speaker" for host in spec.probes if host not in counted)


def _announcement_problems(spec: BgpSpec) -> Iterator[str]:
    for speaker in spec.speakers:
        doubled = [prefix for prefix, count in Counter(speaker.networks).items() if count > 1]
        yield from (f"{speaker.host} announces {prefix} twice" for prefix in doubled)
    for one, other in combinations(spec.speakers, 2):
        if not one.managed and not other.managed and one.asn == other.asn:
            # Two ways into one network of somebody else.
            continue
        same = sorted(set(one.announce) & set(other.announce))
        yield from (f"{prefix} is announced by {one.host} and by {other.host}" for prefix in same)


def _transit_problems(spec: BgpSpec) -> Iterator[str]:
    """What a speaker that passes on needs: different systems around it, and one way only between any two speakers."""
    passing = [speaker for speaker in spec.speakers if speaker.transit]
    if not passing:
        return
    if len({frozenset(session.between) for session in spec.pairs}) != len(spec.speakers) - 1:
        yield "`transit` needs sessions without a ring: one way between any two speakers"
    for speaker in passing:
        around = [
            spec.speaker(host).asn
            for session in spec.pairs
            if speaker.host in session.between
            for host in session.between
            if host != speaker.host
        ]
        if speaker.asn in around or len(set(around)) < len(around):
            yield f"{speaker.host} passes on: it and all its neighbours need different `asn`s, or loops are suspected"
