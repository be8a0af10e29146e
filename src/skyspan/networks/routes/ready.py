"""Whether routes are of use: each is the way that the kernel takes, or stands by, and every way back is there; pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_network

from skyspan.contracts.watch import Cause
from skyspan.networks.addressing import Network
from skyspan.networks.legs import Leg
from skyspan.networks.routes.spec import DEFAULT_METRIC
from skyspan.networks.routes.table import HostRoutes, Static, Taken, target_of


@dataclass(frozen=True, slots=True)
class Way:
    """One way of `host` to the network `to`: whether it is as it is to be, and what is the matter if it is not."""

    host: str
    to: str
    cause: Cause
    leg: Leg


def ways_of(wanted: HostRoutes, taken: Taken) -> Iterator[Way]:
    """The ways of one host, those that are set there and those back that others set."""
    for route in wanted.routes:
        yield Way(wanted.host, route.prefix, Cause.ROUTE_MISSING, _there(wanted.host, route, taken))
    for net, device in wanted.returns:
        yield Way(wanted.host, str(net), Cause.RETURN_ROUTE_MISSING, _back(wanted.host, net, device, taken))


def legs_of(hosts: Sequence[HostRoutes], taken: Sequence[Taken]) -> tuple[Leg, ...]:
    """The same for all hosts, as a report."""
    return tuple(way.leg for wanted, found in zip(hosts, taken, strict=True) for way in ways_of(wanted, found))


def _there(host: str, route: Static, taken: Taken) -> Leg:
    name = f"way of {host} to {route.prefix}"
    if route.key not in taken.there:
        return Leg(name, "the route is not there", "`skyspan up` sets it again")
    device, via = taken.ways.get(target_of(ip_network(route.prefix)), ("", ""))
    if (route.via and via == route.via) or (not route.via and device == route.device):
        return Leg(name)
    if device and route.metric > DEFAULT_METRIC:
        return Leg(name)  # it stands by, as its metric says: what is taken is what the kernel prefers
    goes = f"goes by {via or device}" if device else "leads nowhere"
    return Leg(name, f"it {goes}", f"another route is preferred on {host}: `ip route get` shows it")


def _back(host: str, net: Network, wanted: str, taken: Taken) -> Leg:
    """A way back counts when a route of its own leads there: the default route leads anywhere."""
    name = f"way back of {host} to {net}"
    hint = f"route {net} on {host}, or have it learned there"
    device, _ = taken.ways.get(target_of(net), ("", ""))
    if not device:
        return Leg(name, "there is none", hint)
    if wanted and device != wanted:
        return Leg(name, f"it goes over {device}, not over {wanted}", hint)
    if target_of(net) not in taken.known:
        return Leg(name, f"only by the default route over {device}", hint)
    return Leg(name)
