"""What a link lets through, as nftables text: pure.

One table per link, for its interface alone: what does not come from or go to the interface is left to others. The table
is loaded in one transaction (declare, delete, define), so there is no moment without it, and loading it twice is the
same as once. An `accept` here does not override a drop in somebody else's chain of the same hook (nft(8), verdict
statements; see `docker`); a `reject` here is final. Who loads it from afar arms the timer of `guard` first.

Nearly all packets belong to connections that were established, and a userspace plane is slowed by each rule that they
pass: so what an `accept` gives the same end as the end of its chain comes before the names of interfaces, which cost
most, and what is for a SYN alone asks for that first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from types import MappingProxyType
from typing import TypeAlias

from skyspan.networks.addressing import Network

Address: TypeAlias = IPv4Address | IPv6Address

_RULE = re.compile(r"(?P<protocol>tcp|udp)/(?P<first>\d{1,5})(-(?P<last>\d{1,5}))?")

IPV4_TCP_HEADERS = 40
"""Bytes of an IPv4 and a TCP header without options: what an MSS leaves out of the MTU (RFC 6691)."""

IPV6_TCP_HEADERS = 60
"""The same for IPv6."""

KNOWN = "ct state established,related accept"
"""What belongs to a connection that was let begin; of what is not the link's it ends the chain as its end does."""

TO_CLAMP = "tcp flags & (syn | rst) == syn jump clamp"
"""Before KNOWN, as the answer to a SYN belongs to a connection already."""

ERRORS = (
    "icmp type { destination-unreachable, time-exceeded, parameter-problem } accept",
    "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } accept",
)
"""What ICMP says of packets that do not arrive: without it, path MTU discovery would fail."""

ECHO: Mapping[int, str] = MappingProxyType({4: "icmp type echo-request", 6: "icmpv6 type echo-request"})
"""A ping, by IP version: readiness needs it."""

REFUSAL = ("meta l4proto tcp reject with tcp reset", "reject with icmpx admin-prohibited")
"""The chain `refused`: whoever sends is told so at once, as a silent drop looks like a broken link."""


@dataclass(frozen=True, slots=True, order=True)
class Admission:
    """What new connections may be: a protocol (`icmp`, `tcp`, `udp`, `any`) and, for tcp and udp, a range of ports."""

    protocol: str
    first: int = 0
    last: int = 0


def parse_admission(text: str) -> Admission:
    """`icmp`, `any`, `tcp/22` or `udp/5000-5010`; raises ValueError saying so."""
    if text in ("icmp", "any"):
        return Admission(text)
    found = _RULE.fullmatch(text)
    first = int(found["first"]) if found else 0
    last = int(found["last"] or first) if found else 0
    if found is None or not 0 < first <= last <= 65535:
        msg = f"{text!r} is no rule: write icmp, tcp/22, udp/161, tcp/8000-8080 or any"
        raise ValueError(msg)
    return Admission(found["protocol"], first, last)


@dataclass(frozen=True, slots=True)
class LinkFilter:
    """The filter of one end of a link.

    `here` and `there` are the prefixes behind this end and behind the others; `own` and `peer` the tunnel addresses.
    What is in `through` may go from one of the others to another by this end.
    """

    table: str
    interface: str
    mtu: int
    allow: tuple[Admission, ...]
    here: tuple[Network, ...]
    there: tuple[Network, ...]
    own: tuple[Address, ...]
    peer: tuple[Address, ...]
    through: tuple[Network, ...] = ()


def ruleset(link: LinkFilter) -> str:
    """The text for `nft -f`: only what `allow` says may begin over the link, in either direction, and only between the
    declared prefixes. What is refused is told so at once, as a silent drop looks like a broken link.

    Connections that were established stay when `allow` shrinks. Errors that ICMP carries (too big, unreachable) always
    pass, or path MTU discovery would fail. Both gateways may always ping each other inside: readiness needs it.
    """
    return "\n".join(
        (
            f"table inet {link.table}",
            f"delete table inet {link.table}",
            f"table inet {link.table} {{",
            *chain("clamp", _clamp(link)),
            *hook("input", _input(link)),
            *hook("forward", _forward(link)),
            *chain("admitted", _admitted(link.allow)),
            *chain("refused", REFUSAL),
            "}",
            "",
        )
    )


def removal(table: str) -> str:
    """The text for `nft -f` that leaves no such table, whether there is one or not."""
    return f"table inet {table}\ndelete table inet {table}\n"


def hook(name: str, rules: Iterable[str]) -> Iterator[str]:
    """The lines of a chain that sees what passes the hook of its name."""
    yield from chain(name, (f"type filter hook {name} priority filter; policy accept;", *rules))


def chain(name: str, rules: Iterable[str]) -> Iterator[str]:
    """The lines of a chain."""
    yield f"\tchain {name} {{"
    yield from (f"\t\t{rule}" for rule in rules)
    yield "\t}"


def family_of(thing: Network | Address) -> str:
    """What nftables calls its IP version."""
    return "ip" if thing.version == 4 else "ip6"


def any_of(things: Sequence[str]) -> str:
    """What a rule compares with: one thing, or a set."""
    return things[0] if len(things) == 1 else f"{{ {', '.join(things)} }}"


def from_peers(own: Address, peers: Iterable[Address], what: Iterable[str]) -> Iterator[str]:
    """Rules that accept what the peers of the same IP version send to an own address."""
    callers = [str(peer) for peer in peers if peer.version == own.version]
    if callers:
        family = family_of(own)
        yield from (f"{family} saddr {any_of(callers)} {family} daddr {own} {matches} accept" for matches in what)


def _clamp(link: LinkFilter) -> Iterator[str]:
    """Both directions: a SYN coming out of the tunnel announces what its far side may receive, too."""
    for way in ("iifname", "oifname"):
        for family, headers in (("ipv4", IPV4_TCP_HEADERS), ("ipv6", IPV6_TCP_HEADERS)):
            size = link.mtu - headers
            big = f"tcp option maxseg size > {size}"
            yield f'{way} "{link.interface}" meta nfproto {family} {big} tcp option maxseg size set {size}'


def _input(link: LinkFilter) -> Iterator[str]:
    yield KNOWN
    yield f'iifname != "{link.interface}" accept'
    yield from ERRORS
    # Only from the link itself (RFC 4861 section 7.1), for tunnels that have neighbours.
    yield "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept"
    for own in link.own:
        yield from from_peers(own, link.peer, (ECHO[own.version],))
    yield "jump admitted"
    yield "goto refused"


def _forward(link: LinkFilter) -> Iterator[str]:
    yield TO_CLAMP
    yield KNOWN
    for way in ("iifname", "oifname"):
        yield from (f'{way} "{link.interface}" {rule}' for rule in ERRORS)
    inside, outside = _by_family(link.here), _by_family((*link.there, *link.peer))
    for family in ("ip", "ip6"):
        if inside[family]:
            yield f'iifname "{link.interface}" {family} daddr {{ {", ".join(inside[family])} }} jump admitted'
        if inside[family] and outside[family]:
            pair = f"{family} saddr {{ {', '.join(inside[family])} }} {family} daddr {{ {', '.join(outside[family])} }}"
            yield f'oifname "{link.interface}" {pair} jump admitted'
    for family, networks in _by_family(link.through).items():
        if networks:
            pair = f"{family} saddr {any_of(networks)} {family} daddr {any_of(networks)}"
            yield f'iifname "{link.interface}" oifname "{link.interface}" {pair} jump admitted'
    for way in ("iifname", "oifname"):
        yield f'{way} "{link.interface}" goto refused'


def _admitted(allow: Sequence[Admission]) -> Iterator[str]:
    kinds = {admission.protocol for admission in allow}
    if "any" in kinds:
        yield "accept"
        return
    if "icmp" in kinds:
        yield "meta l4proto { icmp, ipv6-icmp } accept"
    for protocol in ("tcp", "udp"):
        ports = [(rule.first, rule.last) for rule in sorted(allow) if rule.protocol == protocol]
        if ports:
            yield f"{protocol} dport {{ {', '.join(_merged(ports))} }} accept"


def _merged(ranges: Iterable[tuple[int, int]]) -> Iterator[str]:
    """Sorted ranges without overlaps, which older nft refuses inside one set."""
    joined: list[tuple[int, int]] = []
    for first, last in ranges:
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return (str(first) if first == last else f"{first}-{last}" for first, last in joined)


def _by_family(networks: Iterable[Network | Address]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"ip": [], "ip6": []}
    for network in networks:
        found[family_of(network)].append(str(network))
    return found
