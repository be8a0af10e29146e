"""What an IPsec link lets through, as nftables text: pure.

Like `networks.firewall`, one table per link, loaded in one transaction; but what belongs to the link is told by the
prefixes of the other side, as all links of a host may share one interface (libipsec's) or have none (policies).

A userspace plane is slowed by each rule that its packets pass, and most by looking into a set: so each chain first
lets go what it has nothing to say about, and what it would let pass anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from skyspan.networks.addressing import Network
from skyspan.networks.firewall import (
    ECHO,
    ERRORS,
    IPV4_TCP_HEADERS,
    IPV6_TCP_HEADERS,
    KNOWN,
    REFUSAL,
    TO_CLAMP,
    Address,
    Admission,
    any_of,
    chain,
    family_of,
    from_peers,
    hook,
)

_REFUSE = "goto refused"

_FEW = 4
"""Up to how many prefixes are sooner compared one after the other than looked for in a set."""


@dataclass(frozen=True, slots=True)
class EndFilter:
    """The filter of one end.

    `interface` is what packets pass through, empty where policies alone decide. `here` and `there` are the prefixes
    behind this end and the other; `own` and `peer` the tunnel addresses. `others` are interfaces of further links
    to the same prefixes, `speaks` TCP ports of this end that the other end itself may open, for BGP. What this end
    itself sends from its tunnel address to the prefixes there leaves as `leaves_as`, for another side that routes no
    tunnel addresses.
    """

    table: str
    interface: str
    mtu: int
    allow: tuple[Admission, ...]
    here: tuple[Network, ...]
    there: tuple[Network, ...]
    own: tuple[Address, ...]
    peer: tuple[Address, ...]
    others: tuple[str, ...] = ()
    speaks: tuple[int, ...] = ()
    leaves_as: Address | None = None

    @property
    def inside(self) -> str:
        """Every interface that its packets may pass through, for a rule."""
        names = [f'"{name}"' for name in (self.interface, *self.others)]
        return any_of(names)


def ruleset(link: EndFilter) -> str:
    """The text for `nft -f`: only what `allow` says may begin over the link, in either direction, and only between the
    declared prefixes; what is refused is told so at once.

    Nothing of the link passes in the clear: packets from the other side that did not come through the tunnel are
    dropped, packets to it that would not go into the tunnel are refused. Errors that ICMP carries always pass, and the
    gateways may always ping each other inside.
    """
    return "\n".join(
        (
            f"table inet {link.table}",
            f"delete table inet {link.table}",
            f"table inet {link.table} {{",
            *chain("clamp", _clamp(link)),
            *hook("input", (*_aside(link, "saddr"), *_spoofed(link), *_comes(link, "input"))),
            *hook("forward", (TO_CLAMP, *_swift(link), *_spoofed(link), *_leaks(link), *_comes(link, "forward"))),
            *hook("output", (*_aside(link, "daddr"), *_leaks(link))),
            *_renamed(link),
            *chain("arrived", _arrived(link)),
            *chain("passing", _passing(link)),
            *chain("leaving", _leaving(link)),
            *chain("admitted", _admitted(link.allow)),
            *chain("refused", REFUSAL),
            "}",
            "",
        )
    )


def _clamp(link: EndFilter) -> Iterator[str]:
    """Both directions: a SYN coming out of the tunnel announces what its far side may receive, too."""
    for way in ("saddr", "daddr"):
        for family, far in _far(link):
            headers = IPV4_TCP_HEADERS if family == "ip" else IPV6_TCP_HEADERS
            size = link.mtu - headers
            yield f"{family} {way} {far} tcp option maxseg size > {size} tcp option maxseg size set {size}"


def _aside(link: EndFilter, way: str) -> Iterator[str]:
    """What neither comes from the other side nor goes there, as the packets of the tunnel itself: no rule after this
    one would match."""
    for family in ("ip", "ip6"):
        far = [thing for thing in (*link.there, *link.peer) if family_of(thing) == family]
        unlike = [f"{family} {way} != {text}" for text in map(str, far)]
        if len(far) > _FEW:
            unlike = [f"{family} {way} != {any_of([str(thing) for thing in far])}"]
        if far and not any(_everything(thing) for thing in far):
            yield f"{' '.join(unlike)} accept"


def _swift(link: EndFilter) -> Iterator[str]:
    """Connections that were established between the sites, in and out of the tunnel: what is asked here is enough to
    know that neither `_spoofed` nor `_leaks` is meant, as no prefix of this side is one of the other's."""
    far = [*link.there, *(ip_network(address) for address in link.peer)]
    near = [net for net in link.here if not any(net.version == other.version and net.overlaps(other) for other in far)]
    if link.interface:
        for way, side in (("daddr", "iifname"), ("saddr", "oifname")):
            yield from (
                f"ct state established {family} {way} {inside} {side} {link.inside} accept"
                for family, inside in _grouped(near)
            )


def _spoofed(link: EndFilter) -> Iterator[str]:
    """The kernel itself drops what should have come by a policy and did not; an interface has to be asked for."""
    if link.interface:
        yield from (f"iifname != {link.inside} {family} saddr {far} drop" for family, far in _far(link))


def _leaks(link: EndFilter) -> Iterator[str]:
    outside = f"oifname != {link.inside}" if link.interface else "rt ipsec missing"
    yield from (f"{outside} {family} daddr {far} {_REFUSE}" for family, far in _far(link))


def _renamed(link: EndFilter) -> Iterator[str]:
    """Before others translate it: the first translation holds."""
    if link.leaves_as is None:
        return
    rules = (
        f"{family} saddr {own} {family} daddr {far} snat to {link.leaves_as}"
        for family, far in _grouped(link.there)
        for own in link.own
        if family == family_of(own) == family_of(link.leaves_as)
    )
    yield from chain("source", ("type nat hook postrouting priority srcnat - 10; policy accept;", *rules))


def _comes(link: EndFilter, where: str) -> Iterator[str]:
    then = "arrived" if where == "input" else "passing"
    yield from (f"{family} saddr {far} goto {then}" for family, far in _far(link))
    if where == "forward":
        yield from (f"{family} daddr {far} goto leaving" for family, far in _far(link))


def _arrived(link: EndFilter) -> Iterator[str]:
    yield from _known()
    for own in link.own:
        yield from from_peers(own, link.peer, (ECHO[own.version], *(f"tcp dport {port}" for port in link.speaks)))
    yield "jump admitted"
    yield _REFUSE


def _passing(link: EndFilter) -> Iterator[str]:
    yield from _known()
    yield from (f"{family} daddr {near} jump admitted" for family, near in _grouped(link.here))
    yield _REFUSE


def _leaving(link: EndFilter) -> Iterator[str]:
    yield from _known()
    yield from (f"{family} saddr {near} jump admitted" for family, near in _grouped(link.here))
    yield _REFUSE


def _known() -> Iterator[str]:
    yield KNOWN
    yield from ERRORS


def _admitted(allow: Iterable[Admission]) -> Iterator[str]:
    rules = sorted(set(allow))
    if Admission("any") in rules:
        yield "accept"
        return
    for rule in rules:
        if rule.protocol == "icmp":
            yield "meta l4proto { icmp, ipv6-icmp } accept"
        else:
            ports = str(rule.first) if rule.first == rule.last else f"{rule.first}-{rule.last}"
            yield f"{rule.protocol} dport {ports} accept"


def _far(link: EndFilter) -> list[tuple[str, str]]:
    return _grouped((*link.there, *link.peer))


def _grouped(things: Iterable[Network | Address]) -> list[tuple[str, str]]:
    found: dict[str, list[str]] = {}
    for thing in things:
        found.setdefault(family_of(thing), []).append(str(thing))
    return [(family, any_of(texts)) for family, texts in sorted(found.items())]


def _everything(thing: Network | Address) -> bool:
    return isinstance(thing, IPv4Network | IPv6Network) and thing.prefixlen == 0
