"""Which sets of ends and prefixes can work: pure checks, each finding in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import combinations

from skyspan.networks.addressing import Network

ROUTE_PROTOCOL = 241
"""The number that marks the routes of links (rtnetlink(7), rtm_protocol): not among those of iproute2's rt_protos."""


@dataclass(frozen=True, slots=True)
class Site:
    """What an end of a link stands for: the prefixes behind it, and the address at which it is reached from outside
    (an IP address, a name, or nothing)."""

    name: str
    prefixes: tuple[Network, ...]
    endpoint: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """A route that exists on a host: `connected` ones are put there by the kernel for the host's own networks; `source`
    is the address it gives to what the host itself sends, empty where that is left to the kernel."""

    prefix: Network
    device: str
    protocol: str
    connected: bool = False
    source: str = ""


@dataclass(frozen=True, slots=True)
class OwnRoute:
    """A route of a link over its interface, and the source address it gives to what the host itself sends."""

    prefix: str
    source: str = ""


def own_routes(routes: Sequence[Route], device: str) -> tuple[OwnRoute, ...]:
    """Those that a link put on its interface."""
    ours = str(ROUTE_PROTOCOL)
    return tuple(
        OwnRoute(str(route.prefix), route.source)
        for route in routes
        if (route.protocol, route.device) == (ours, device)
    )


def conflicts(sites: Sequence[Site], tunnel: Sequence[Network] = ()) -> Iterator[str]:
    """Everything that keeps these ends from being joined: what overlaps, and endpoints inside their own tunnel."""
    for site in sites:
        yield from _within(site)
    for one, other in combinations(sites, 2):
        yield from _between(one, other)
    for site in sites:
        for prefix in site.prefixes:
            yield from (
                f"prefix {prefix} of {site.name} overlaps the tunnel's own addresses {net}"
                for net in tunnel
                if prefix.overlaps(net)
            )
        yield from _loops(site)


def _within(site: Site) -> Iterator[str]:
    for one, other in combinations(site.prefixes, 2):
        if one.overlaps(other):
            yield f"prefixes {one} and {other} of {site.name} overlap: the wider one is enough"


def _between(one: Site, other: Site) -> Iterator[str]:
    for mine in one.prefixes:
        for theirs in other.prefixes:
            if mine.overlaps(theirs):
                yield f"prefix {mine} of {one.name} overlaps {theirs} of {other.name}"


def _loops(site: Site) -> Iterator[str]:
    address = literal(site.endpoint)
    for prefix in site.prefixes:
        if address is not None and address in prefix:
            yield (
                f"endpoint {site.endpoint} of {site.name} lies inside its own prefix {prefix}: "
                "the tunnel's packets would be routed into the tunnel"
            )


def literal(endpoint: str) -> IPv4Address | IPv6Address | None:
    """The IP address that `endpoint` is; None for a name."""
    try:
        return ip_address(endpoint.strip("[]"))
    except ValueError:
        return None


def shadowed(wanted: Sequence[Network], existing: Sequence[Route], device: str, protocol: str) -> Iterator[str]:
    """Every existing route that a wanted one over `device` would take over.

    A connected network is taken over by a wanted prefix equal to it or inside it; a wider prefix leaves it alone, as
    the kernel prefers the longer match. Any other route is only replaced by one for the very same prefix.
    """
    for prefix in wanted:
        for route in existing:
            if route.device == device or route.protocol == protocol or route.prefix.version != prefix.version:
                continue
            if route.connected and _covers(route.prefix, prefix):
                yield f"{prefix} would take over the connected network {route.prefix} of {route.device}"
            elif not route.connected and route.prefix == prefix:
                yield f"{prefix} is already routed over {route.device} (proto {route.protocol})"


def _covers(wide: Network, narrow: Network) -> bool:
    return wide.prefixlen <= narrow.prefixlen and wide.overlaps(narrow)
