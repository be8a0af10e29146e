"""The routes of each host: as they are to be, as they are, and how these differ; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

from skyspan.contracts.host import Host
from skyspan.model.address import StageAddress
from skyspan.model.change import Action, ResourceChange
from skyspan.model.error import SpecError, ToolMissingError
from skyspan.networks import looking
from skyspan.networks.addressing import Network, interface_name
from skyspan.networks.peers import Route as Existing
from skyspan.networks.peers import shadowed
from skyspan.networks.routes.spec import RoutesSpec

PROTOCOL = 242
"""The number that marks our routes (rtnetlink(7), rtm_protocol): not among those of iproute2's rt_protos, and another
than that of links, which take away what they did not put on their interfaces."""


@dataclass(frozen=True, slots=True, order=True)
class Static:
    """One route, as settings want it or as the kernel has it; empty where nothing is said."""

    prefix: str
    metric: int
    via: str = ""
    device: str = ""
    source: str = ""

    @property
    def key(self) -> str:
        """What the host's record says of it: IP version, prefix and metric, which make a route one of its kind."""
        return f"{6 if ':' in self.prefix else 4} {self.prefix} {self.metric}"

    def line(self) -> str:
        """The key, and the rest as `ip route` takes it."""
        parts = (("via", self.via), ("dev", self.device), ("src", self.source))
        return " ".join((self.key, *(f"{word} {text}" for word, text in parts if text)))

    def fits(self, there: Static) -> bool:
        """Whether what the kernel has is this; it may know more, such as the device of a `via`."""
        pairs = ((self.via, there.via), (self.device, there.device), (self.source, there.source))
        return self.key == there.key and all(not wanted or wanted == found for wanted, found in pairs)


@dataclass(frozen=True, slots=True)
class HostRoutes:
    """One host: its routes, and the ways back that it must have (each with its interface or nothing)."""

    host: str
    owner: str
    identity: str
    routes: tuple[Static, ...]
    returns: tuple[tuple[Network, str], ...]
    sudo: bool

    @property
    def targets(self) -> tuple[str, ...]:
        """Addresses whose way is asked for."""
        nets = (*(ip_network(route.prefix) for route in self.routes), *(net for net, _ in self.returns))
        return tuple(dict.fromkeys(target_of(net) for net in nets))


def identity_of(address: StageAddress) -> str:
    """The name of a stage's record on its hosts."""
    return interface_name(str(address))


def plan_hosts(spec: RoutesSpec, address: StageAddress, hosts: Mapping[str, Host]) -> tuple[HostRoutes, ...]:
    """Every host with routes or ways back. Raises SpecError for a host that does not exist."""
    names = tuple(dict.fromkeys([*(item.host for item in spec.routes), *(item.host for item in spec.returns)]))
    for name in names:
        if name not in hosts:
            known = ", ".join(sorted(hosts)) or "none"
            raise SpecError(f"the composition has no host {name!r}", hint=f"hosts: {known}")
    return tuple(
        HostRoutes(
            host=name,
            owner=str(address),
            identity=identity_of(address),
            routes=tuple(
                sorted(
                    Static(str(net), item.metric, _short(item.via), item.interface or "", _short(item.source))
                    for item in spec.routes
                    if item.host == name
                    for net in item.networks
                )
            ),
            returns=tuple(
                (net, item.interface or "") for item in spec.returns if item.host == name for net in item.networks
            ),
            sudo=hosts[name].user != "root",
        )
        for name in names
    )


def _short(text: str | None) -> str:
    return str(ip_address(text)) if text else ""


def target_of(net: Network) -> str:
    """The address by which is asked which way a network is reached."""
    return str(net.network_address + (1 if net.num_addresses > 2 else 0))


@dataclass(frozen=True, slots=True)
class Taken:
    """Which ways a host takes, and what of ours it has: all that readiness is about. `there` are keys of marked routes,
    `known` the targets that a route of their own leads to, not the default route alone. `ways` is by target the device
    and next router, both empty for none."""

    there: frozenset[str]
    known: frozenset[str]
    ways: Mapping[str, tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Seen:
    """One host as seen. `recorded` are the keys of what the stage put there; `ours` the marked routes among them.
    `others` are all routes with their keys. `ways` is by address the device and next router, both empty for none."""

    tools: Mapping[str, bool]
    owner: str
    recorded: frozenset[str] = frozenset()
    ours: tuple[Static, ...] = ()
    others: tuple[tuple[str, Existing], ...] = ()
    ways: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def taken(self) -> Taken:
        """What readiness is about."""
        routes = [*(ip_network(static.prefix) for static in self.ours), *(route.prefix for _, route in self.others)]
        own = [net for net in routes if net.prefixlen > 0]
        known = frozenset(target for target in self.ways if any(ip_address(target) in net for net in own))
        return Taken(frozenset(static.key for static in self.ours), known, self.ways)


def parse_seen(text: str) -> Seen:
    """What the look at a host printed; raises ValueError or KeyError for what it cannot have."""
    parts = looking.sections(text)
    recorded = frozenset(parts["recorded"].splitlines())
    both = (("route4", "0.0.0.0/0"), ("route6", "::/0"))
    rows = [
        (_static(item, all_), looking.route(item, all_)) for name, all_ in both for item in looking.objects(parts[name])
    ]
    marked = {static.key for static, route in rows if route.protocol == str(PROTOCOL) and static.key in recorded}
    return Seen(
        tools={name: found == "yes" for name, found in looking.pairs(parts["tools"])},
        owner=parts["owner"].strip(),
        recorded=recorded,
        ours=tuple(static for static, _ in rows if static.key in marked),
        others=tuple((static.key, route) for static, route in rows if static.key not in marked),
        ways={target: _way(answer) for target, answer in looking.pairs(parts["ways"])},
    )


def parse_taken(text: str) -> Taken:
    """What the quick look at a host printed; raises ValueError or KeyError for what it cannot have."""
    said: dict[str, list[str]] = {"there": [], "known": [], "way": []}
    for word, rest in looking.pairs(text):
        said[word].append(rest)
    ways = {target: _way(answer) for target, answer in looking.pairs("\n".join(said["way"]))}
    return Taken(frozenset(said["there"]), frozenset(said["known"]), ways)


def _static(item: Mapping[str, Any], everything: str) -> Static:
    prefix = ip_network(everything if item["dst"] == "default" else item["dst"], strict=False)
    via = item.get("gateway") or item.get("via", {}).get("host", "")
    return Static(str(prefix), int(item.get("metric", 0)), via, item.get("dev", ""), item.get("prefsrc", ""))


def _way(answer: str) -> tuple[str, str]:
    found = looking.objects(answer)
    if not found:
        return "", ""
    return found[0].get("dev", ""), found[0].get("gateway") or found[0].get("via", {}).get("host", "")


def differences(wanted: HostRoutes, seen: Seen) -> Iterator[ResourceChange]:
    """What would have to change on the host, route by route."""
    there = {static.key: static for static in seen.ours}
    for route in wanted.routes:
        found = there.pop(route.key, None)
        if found is None:
            yield ResourceChange(_named(wanted.host, route), Action.CREATE)
        elif not route.fits(found):
            yield ResourceChange(_named(wanted.host, route), Action.UPDATE, f"goes by {found.via or found.device}")
    yield from (ResourceChange(_named(wanted.host, route), Action.DESTROY) for route in there.values())


def _named(host: str, route: Static) -> str:
    return f"{host}: route {route.prefix} metric {route.metric}"


def creation(wanted: HostRoutes) -> Iterator[ResourceChange]:
    """What making the routes from nothing makes."""
    return (ResourceChange(_named(wanted.host, route), Action.CREATE) for route in wanted.routes)


def refuse(wanted: HostRoutes, seen: Seen) -> None:
    """Raise StageError when something on the host is in the way; nothing was touched yet."""
    missing = [tool for tool, found in seen.tools.items() if not found]
    if missing:
        raise ToolMissingError(
            f"{wanted.host} has no {', '.join(missing)}", hint=f"on {wanted.host}: apt-get install iproute2 util-linux"
        )
    if seen.owner and seen.owner != wanted.owner:
        raise SpecError(
            f"the name {wanted.identity} is taken on {wanted.host}: it belongs to {seen.owner}",
            hint="give the stage another name",
        )
    connected = [route for _, route in seen.others if route.connected]
    problems = [
        problem
        for route in wanted.routes
        for problem in shadowed([ip_network(route.prefix)], connected, route.device or "\0", "")
    ]
    taken = dict(seen.others)
    problems += [
        f"{route.prefix} with metric {route.metric} is there already, over {taken[route.key].device} "
        f"(proto {taken[route.key].protocol or 'none'})"
        for route in wanted.routes
        if route.key in taken
    ]
    if problems:
        raise SpecError(
            f"routes on {wanted.host} are in the way: {problems[0]}",
            detail="\n".join(problems[1:]),
            hint="correct `to`, give the route another `metric`, or remove what has it",
        )
