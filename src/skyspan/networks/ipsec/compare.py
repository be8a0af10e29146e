"""How an end as seen differs from what it is to be, and what stands in the way of making it so: pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_interface
from types import MappingProxyType

from skyspan.model.change import Action, ResourceChange
from skyspan.model.error import SpecError, ToolMissingError
from skyspan.networks import docker
from skyspan.networks.firewall import Address
from skyspan.networks.ipsec.link import EndState
from skyspan.networks.ipsec.parse import Survey, carrier, userspace_runs
from skyspan.networks.ipsec.spec import Plane
from skyspan.networks.looking import digest_of
from skyspan.networks.peers import ROUTE_PROTOCOL, OwnRoute, shadowed

PACKAGES: Mapping[str, str] = MappingProxyType(
    {
        "swanctl": "strongswan-swanctl",
        "ip": "iproute2",
        "nft": "nftables",
        "ping": "iputils-ping",
        "flock": "util-linux",
        "sha256sum": "coreutils",
        "awk": "mawk",
    }
)
"""What a gateway needs, and the Debian package that has it."""

DAEMON_PACKAGES = "charon-systemd strongswan-swanctl libstrongswan-standard-plugins libcharon-extra-plugins"
"""What Debian calls the daemon and its plugins; the last holds libipsec."""


PLANES: tuple[Plane, ...] = ("route", "policy", "userspace")
"""Who can carry packets, the best first."""

RENUMBER = "name a free network of two addresses: `tunnel: 10.254.0.0/31`"


def plane_of(mode: str, host: str, seen: Survey, planes: Sequence[Plane] = PLANES) -> Plane:
    """Who is to carry the packets on a host: what `mode` asks for, or the best of `planes` that is there.

    A daemon that runs already decides: its plugins are others' business. Raises ToolMissingError, naming the packages,
    when nothing can carry them.
    """
    userspace = userspace_runs(seen) if seen.answers else seen.tools.get("libipsec", False)
    kernel = seen.tools.get("esp", False) and not (seen.answers and userspace)
    can: dict[Plane, bool] = {
        "route": kernel and seen.tools.get("xfrm-interface", False),
        "policy": kernel,
        "userspace": userspace,
    }
    for plane in planes:
        if can[plane] and mode in ("auto", plane):
            return plane
    if mode == "auto":
        raise ToolMissingError(
            f"neither the kernel of {host} nor strongSwan's libipsec there can carry ESP",
            hint=_hint(host, seen),
        )
    have = ", ".join(plane for plane in planes if can[plane]) or "none"
    raise ToolMissingError(
        f"{host} cannot carry the link by `mode: {mode}`; it has: {have}",
        hint="use `mode: auto`" if have != "none" else _hint(host, seen),
    )


def _hint(host: str, seen: Survey) -> str:
    if seen.answers:
        return (
            f"on {host}: apt-get install libcharon-extra-plugins, set `load = yes` in "
            "/etc/strongswan.d/charon/kernel-libipsec.conf and restart the daemon that runs there"
        )
    return f"on {host}: apt-get install {DAEMON_PACKAGES}, or use a kernel that has esp4 and xfrm_interface"


def refuse_missing_tools(host: str, seen: Survey) -> None:
    """Raise ToolMissingError, naming host and packages, when the host lacks what a link needs."""
    missing = [tool for tool in PACKAGES if not seen.tools.get(tool, False)]
    if missing:
        raise ToolMissingError(
            f"{host} has no {', '.join(missing)}",
            hint=f"on {host}: apt-get install {' '.join(dict.fromkeys(PACKAGES[tool] for tool in missing))}",
        )
    if not seen.answers and not seen.tools.get("charon", False):
        raise ToolMissingError(f"{host} has no charon", hint=f"on {host}: apt-get install {DAEMON_PACKAGES}")


def refuse_collisions(end: EndState, seen: Survey, renumber: str = RENUMBER) -> None:
    """Raise SpecError when something on the host is in the way; nothing was touched yet. `renumber` says how the tunnel
    gets other addresses."""
    there = end.name in seen.interfaces or end.name in seen.connections
    if seen.owner != end.owner and (there or seen.owner):
        whose = "" if seen.owner in ("", "?") else f": it belongs to {seen.owner}"
        raise SpecError(
            f"the name {end.name} is taken on {end.host}{whose}",
            detail=""
            if whose
            else "there is a connection, an interface or a file of that name, and nothing says that this stage made it",
            hint="remove what has it, or name the stage otherwise",
        )
    # BGP names its peer in an address of the interface that packets pass through.
    own = ("lo", end.name, end.interface)
    inner = {ip_address(text) for text in (*end.addresses, *end.peer_addresses)}
    for device, texts in seen.addresses.items():
        for text in texts:
            if ip_interface(text).ip in inner and not (seen.owner == end.owner and device in own):
                raise SpecError(
                    f"the tunnel's address {text} is in use on {end.host}, by {device}",
                    hint=renumber,
                )
    staying = [route for route in seen.routes if route.device not in (end.name, end.interface)]
    in_the_way = list(shadowed(end.destinations, staying, end.name, str(ROUTE_PROTOCOL)))
    in_the_way += [
        f"{route.prefix} is already routed over another link, {route.device}"
        for route in staying
        if route.protocol == str(ROUTE_PROTOCOL) and route.prefix in end.destinations
    ]
    if in_the_way:
        raise SpecError(
            f"routes on {end.host} are in the way: {in_the_way[0]}",
            detail="\n".join(in_the_way[1:]),
            hint=f"correct the prefixes of {end.other}, or remove what routes them on {end.host}",
        )


def routes_of(end: EndState, seen: Survey) -> tuple[OwnRoute, ...]:
    """The routes over the XFRM interface, none without one. What the gateway sends itself gets its own address inside
    the site where it has one, else that of the tunnel."""
    if end.plane != "route":
        return ()
    return tuple(OwnRoute(str(net), _source(net.version, end, seen)) for net in end.destinations)


def _source(version: int, end: EndState, seen: Survey) -> str:
    tunnel = [address for address in map(ip_address, end.addresses) if address.version == version]
    return str(site_address(version, end, seen) or min(tunnel, key=int))


def site_address(version: int, end: EndState, seen: Survey) -> Address | None:
    """The gateway's own address inside its site; None where it has none."""
    own = [
        (device, ip_interface(text).ip)
        for device, texts in seen.addresses.items()
        if device != end.name
        for text in texts
    ]
    # On the loopback a network address is what libipsec is given where the gateway has none.
    inside = [
        ip
        for device, ip in own
        for net in end.here
        if ip.version == version and ip in net and (device != "lo" or ip != net.network_address)
    ]
    return min(inside, key=int, default=None)


def addresses_of(end: EndState, seen: Survey) -> tuple[str, ...]:
    """The addresses that the gateway gets for the link. libipsec refuses a prefix in which its host has no address of
    its own, so there it gets the prefix's network address, which no other machine can have."""
    if end.plane != "userspace":
        return end.addresses
    anchors = {net: str(net.network_address) for net in end.here if net.num_addresses > 2}
    own = {
        ip_interface(text).ip
        for device, texts in seen.addresses.items()
        for text in texts
        if device != "lo" or str(ip_interface(text).ip) not in anchors.values()
    }
    bare = [net for net in end.here if not any(ip in net for ip in own)]
    hopeless = [net for net in bare if net not in anchors]
    if hopeless:
        raise SpecError(
            f"{end.host} has no address in {hopeless[0]}, as strongSwan's libipsec needs it",
            hint="give the gateway an address inside the prefix, or use `mode: route` with a kernel that has it",
        )
    return (*end.addresses, *(anchors[net] for net in bare))


def differences(end: EndState, files: Mapping[str, str], session: str, seen: Survey) -> Iterator[ResourceChange]:
    """What would have to change on the host, resource by resource; nothing when it is as it is to be. `session`
    stands for both ends' files."""
    if not seen.answers:
        yield ResourceChange(f"{end.host}: daemon charon", Action.UPDATE, "not running")
    elif end.name not in seen.connections:
        yield ResourceChange(f"{end.host}: connection {end.name}", _made(seen.digests.get("conf")), "not loaded")
    elif _files_differ(files, seen):
        yield ResourceChange(f"{end.host}: connection {end.name}", Action.UPDATE)
    elif seen.digests.get("synced") != digest_of(session):
        yield ResourceChange(f"{end.host}: session with {end.other}", Action.UPDATE, "made with other settings")
    if end.plane == "route":
        mtu, up, _ = seen.interfaces.get(end.name, (0, False, ""))
        if end.name not in seen.interfaces:
            yield ResourceChange(f"{end.host}: interface {end.name}", Action.CREATE)
        elif not up or mtu != end.mtu:
            yield ResourceChange(
                f"{end.host}: interface {end.name}", Action.UPDATE, f"MTU {mtu}, not {end.mtu}" if up else "down"
            )
    elif seen.answers and not carrier(end.plane, end.name, seen):
        yield ResourceChange(f"{end.host}: interface {end.interface}", Action.UPDATE, "not up")
    device = end.name if end.plane == "route" else "lo"
    have = {ip_interface(text).ip for text in seen.addresses.get(device, ())}
    for address in addresses_of(end, seen):
        if ip_address(address) not in have:
            yield ResourceChange(f"{end.host}: address {address}", Action.CREATE)
    wanted = {route.prefix: route for route in routes_of(end, seen)}
    there = {route.prefix: route for route in seen.own_routes}
    for prefix in sorted(wanted.keys() | there.keys()):
        if wanted.get(prefix) != there.get(prefix):
            action = Action.DESTROY if prefix not in wanted else _made(prefix if prefix in there else None)
            yield ResourceChange(f"{end.host}: route {prefix}", action)
    live = seen.digests.get("table")
    if live != seen.digests.get("loaded") or seen.digests.get("rules") != digest_of(end.firewall):
        yield ResourceChange(f"{end.host}: firewall {end.table}", _made(seen.digests.get("rules")))
    for family in seen.held(end.families):
        yield ResourceChange(f"{end.host}: forwarding of IPv{family}", Action.UPDATE, "off")
    yield from _docker_differs(end, seen)


def _docker_differs(end: EndState, seen: Survey) -> Iterator[ResourceChange]:
    """The host compares its chains with what it wrote down; whether that is what is wanted is another question."""
    missing = tuple(docker.unlike(end.host, end.admitted_families, seen.filters))
    yield from missing
    if seen.filters.docker and not missing and seen.digests.get("admitted") != digest_of(end.admitted_text):
        yield ResourceChange(f"{end.host}: DOCKER-USER", Action.UPDATE, "lets through what was declared before")


def _files_differ(files: Mapping[str, str], seen: Survey) -> bool:
    return any(
        seen.digests.get(name) != (digest_of(files[name]) if name in files else None)
        for name in ("conf", "key", "cert", "ca")
    )


def creation(end: EndState) -> Iterator[ResourceChange]:
    """What making the end from nothing makes, whoever will carry the packets: that is seen when it is made."""
    yield ResourceChange(f"{end.host}: connection {end.name}", Action.CREATE)
    for address in end.addresses:
        yield ResourceChange(f"{end.host}: address {address}", Action.CREATE)
    yield ResourceChange(f"{end.host}: firewall {end.table}", Action.CREATE)


def _made(digest: str | None) -> Action:
    return Action.CREATE if digest is None else Action.UPDATE


def present(ends: Sequence[EndState], seen: Sequence[Survey]) -> bool:
    """Whether either host has the link's file, and it is ours."""
    return any(survey.owner == end.owner and "conf" in survey.digests for end, survey in zip(ends, seen, strict=True))
