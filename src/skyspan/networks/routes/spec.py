"""The settings of a routes stage, and what can be said against them without looking at a host."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

from pydantic import Field, model_validator

from skyspan.contracts.provider import Spec
from skyspan.model.composition import Seconds
from skyspan.networks.addressing import Network
from skyspan.networks.written import Device, PlainAddress, Prefix

DEFAULT_METRIC = 10
"""Below what BGP's routes get (20 from FRR, 1000 and more from BIRD), so a static route is preferred to a learned one;
above 0, which networks that a host is connected to and links have."""


class Route(Spec):
    """Which way a host sends what goes to some networks."""

    host: str
    """The host that gets the route."""
    to: tuple[Prefix, ...] = Field(min_length=1)
    """The networks; not the default route."""
    via: PlainAddress | None = None
    """The next router, on a network that the host is connected to."""
    interface: Device | None = None
    """The interface to send over; needed without `via`."""
    source: PlainAddress | None = None
    """The address that the host itself sends from on this way; default: the kernel's choice."""
    metric: int = Field(default=DEFAULT_METRIC, ge=1, le=4294967295)
    """The lower, the more preferred. The default is preferred to routes learned by BGP; give 100000 for one that is
    only taken while BGP has none."""

    @property
    def networks(self) -> tuple[Network, ...]:
        """Its prefixes as networks."""
        return tuple(ip_network(prefix) for prefix in self.to)

    @model_validator(mode="after")
    def _leads_somewhere(self) -> Route:
        problems = [f"{net} is everything: the default route is not ours to take" for net in self._everything()]
        if self.via is None and self.interface is None:
            problems.append(f"the route of {self.host} to {self.to[0]} needs `via` or `interface`")
        for name, text in (("via", self.via), ("source", self.source)):
            versions = {net.version for net in self.networks}
            if text is not None and versions != {ip_address(text).version}:
                problems.append(f"{name} {text} and {', '.join(self.to)} are not of one IP version")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _everything(self) -> Iterator[Network]:
        return (net for net in self.networks if net.prefixlen == 0)


class Return(Spec):
    """A way back that must be there for the routes to be of use."""

    host: str
    """The host on the other side."""
    to: tuple[Prefix, ...] = Field(min_length=1)
    """The networks that it must know the way to, by more than its default route."""
    interface: Device | None = None
    """The interface that the way must lead over; default: any."""

    @property
    def networks(self) -> tuple[Network, ...]:
        """Its prefixes as networks."""
        return tuple(ip_network(prefix) for prefix in self.to)


class RoutesSpec(Spec):
    """Static routes on hosts."""

    routes: tuple[Route, ...] = Field(min_length=1)
    """The routes."""
    returns: tuple[Return, ...] = ()
    """The ways back that are checked, not made."""
    ready_within: Seconds = 10.0
    """How long the ways back may take to come up."""

    @model_validator(mode="after")
    def _distinct(self) -> RoutesSpec:
        counted = Counter((route.host, net, route.metric) for route in self.routes for net in route.networks)
        doubled = [f"{host} has two routes to {net}" for (host, net, _), count in counted.items() if count > 1]
        if doubled:
            raise ValueError("; ".join((*doubled, "give them different metrics")))
        return self
