"""How an end as seen differs from what it is to be, and what stands in the way of making it so: pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_interface
from types import MappingProxyType

from skyspan.model.change import Action, ResourceChange
from skyspan.model.error import NotReadyError, SpecError, ToolMissingError
from skyspan.networks import docker
from skyspan.networks.addressing import Network
from skyspan.networks.looking import digest_of
from skyspan.networks.peers import ROUTE_PROTOCOL, OwnRoute, Route, shadowed
from skyspan.networks.wireguard.config import NO_PSK, config_text
from skyspan.networks.wireguard.keys import Keys
from skyspan.networks.wireguard.link import EndState
from skyspan.networks.wireguard.parse import Survey

PACKAGES: Mapping[str, str] = MappingProxyType(
    {
        "wg": "wireguard-tools",
        "ip": "iproute2",
        "nft": "nftables",
        "ping": "iputils-ping",
        "flock": "util-linux",
        "sha256sum": "coreutils",
    }
)
"""What a gateway needs, and the Debian package that has it."""


CAP_NET_ADMIN = 12
"""The bit of the capability to change the network (capabilities(7))."""


def routes_of(end: EndState, seen: Survey) -> tuple[OwnRoute, ...]:
    """The routes over the tunnel. What the gateway sends itself gets its own address inside the site where it has one:
    the other side's machines know the way back to the site, not to the tunnel's addresses."""
    return tuple(OwnRoute(str(net), _source(net, end, seen)) for net in end.destinations)


def _source(destination: Network, end: EndState, seen: Survey) -> str:
    if destination not in end.there:
        return ""
    own = (ip_interface(text).ip for texts in seen.others.values() for text in texts)
    inside = [ip for ip in own if ip.version == destination.version and any(ip in net for net in end.here)]
    return str(min(inside, key=int)) if inside else ""


def differences(end: EndState, keys: Keys, seen: Survey) -> Iterator[ResourceChange]:
    """What would have to change on the host, resource by resource; nothing when it is as it is to be."""
    interface = f"{end.host}: interface {end.interface}"
    if not seen.present:
        yield ResourceChange(interface, Action.CREATE)
    elif wrong_plane(end, seen):
        yield ResourceChange(interface, Action.REPLACE, f"carried by {seen.plane}, not by {end.plane}")
    elif unlike := _unlike(end, keys, seen):
        yield ResourceChange(interface, Action.UPDATE, unlike)
    yield from _peer_differences(end, keys, seen)
    yield from _listed(f"{end.host}: address ", set(end.addresses), set(seen.addresses))
    wanted = {route.prefix: route for route in routes_of(end, seen)}
    there = {route.prefix: route for route in seen.own_routes}
    yield from _listed(f"{end.host}: route ", set(wanted), set(there))
    for prefix in wanted.keys() & there.keys():
        if wanted[prefix] != there[prefix]:
            yield ResourceChange(f"{end.host}: route {prefix}", Action.UPDATE, f"from {wanted[prefix].source or 'any'}")
    if not _firewall_stands(end, seen):
        yield ResourceChange(f"{end.host}: firewall {end.table}", _made(seen.digests.get("rules")))
    if seen.digests.get("config") != digest_of(config_text(end, keys).reveal()):
        yield ResourceChange(f"{end.host}: file {end.interface}.conf", _made(seen.digests.get("config")))
    for family in end.families:
        if not seen.forwarding.get(family, False):
            yield ResourceChange(f"{end.host}: forwarding of IPv{family}", Action.UPDATE, "off")
    yield from docker.unlike(end.host, end.families, seen.filters)


def creation(end: EndState) -> Iterator[ResourceChange]:
    """What making the end from nothing makes."""
    yield ResourceChange(f"{end.host}: interface {end.interface}", Action.CREATE)
    for peer in end.peers:
        yield ResourceChange(f"{end.host}: peer {peer.host}", Action.CREATE)
    for address in end.addresses:
        yield ResourceChange(f"{end.host}: address {address}", Action.CREATE)
    for net in end.destinations:
        yield ResourceChange(f"{end.host}: route {net}", Action.CREATE)
    yield ResourceChange(f"{end.host}: firewall {end.table}", Action.CREATE)
    yield ResourceChange(f"{end.host}: file {end.interface}.conf", Action.CREATE)


def wrong_plane(end: EndState, seen: Survey) -> bool:
    """Whether the interface must be made anew, by somebody else."""
    return seen.present and seen.plane != (seen.plane if end.plane == "auto" else end.plane)


def _peer_differences(end: EndState, keys: Keys, seen: Survey) -> Iterator[ResourceChange]:
    wanted = {keys.public[peer.host]: peer for peer in end.peers}
    live = {peer.public_key: peer for peer in seen.peers}
    for public, peer in wanted.items():
        there = live.get(public)
        if there is None:
            yield ResourceChange(f"{end.host}: peer {peer.host}", Action.CREATE)
        elif set(there.allowed_ips) != set(peer.allowed_ips) or there.keepalive != peer.keepalive:
            yield ResourceChange(f"{end.host}: peer {peer.host}", Action.UPDATE)
    names = {key: host for host, key in keys.public.items()}
    for public in live.keys() - wanted.keys():
        yield ResourceChange(f"{end.host}: peer {names.get(public, public)}", Action.DESTROY)


def _shared_keys(end: EndState, keys: Keys) -> str:
    """What `wg show IF preshared-keys` prints, its lines sorted."""
    lines = []
    for peer in end.peers:
        psk = keys.psk(end.host, peer.host)
        text = psk.reveal().strip() if psk else NO_PSK
        lines.append(f"{keys.public[peer.host]}\t{'(none)' if text == NO_PSK else text}\n")
    return "".join(sorted(lines))


def _firewall_stands(end: EndState, seen: Survey) -> bool:
    live = seen.digests.get("table")
    return live == seen.digests.get("loaded") and seen.digests.get("rules") == digest_of(end.firewall)


def _listed(label: str, wanted: set[str], there: set[str]) -> Iterator[ResourceChange]:
    for item in sorted(wanted - there):
        yield ResourceChange(label + item, Action.CREATE)
    for item in sorted(there - wanted):
        yield ResourceChange(label + item, Action.DESTROY)


def _unlike(end: EndState, keys: Keys, seen: Survey) -> str:
    """How the interface itself differs; empty when it does not."""
    if not seen.up:
        return "down"
    if seen.mtu != end.mtu:
        return f"MTU {seen.mtu}, not {end.mtu}"
    if seen.port != end.port:
        return f"port {seen.port}, not {end.port}"
    if seen.public_key != keys.public[end.host]:
        return "another key"
    if seen.digests.get("psk") != digest_of(_shared_keys(end, keys)):
        return "other shared keys"
    if seen.digests.get("synced") != digest_of(config_text(end, keys).reveal()):
        return "an older configuration"
    return ""


def _made(digest: str | None) -> Action:
    return Action.CREATE if digest is None else Action.UPDATE


def is_ours(end: EndState, seen: Survey) -> bool:
    """Whether the host's mark of ownership says that this stage made the interface."""
    return seen.owner == end.owner


def refuse_missing_tools(end: EndState, seen: Survey) -> None:
    """Raise ToolMissingError, naming host and packages, when the host lacks what a link needs."""
    missing = [tool for tool in PACKAGES if not seen.tools.get(tool, False)]
    if missing:
        raise ToolMissingError(
            f"{end.host} has no {', '.join(missing)}",
            hint=f"on {end.host}: apt-get install {' '.join(dict.fromkeys(PACKAGES[tool] for tool in missing))}",
        )
    kernel, userspace = seen.tools.get("kernel", False), seen.tools.get("wireguard-go", False)
    if not userspace and not kernel and not seen.present and end.plane != "kernel":
        raise ToolMissingError(
            f"neither the kernel of {end.host} nor wireguard-go there can carry WireGuard",
            hint=f"on {end.host}: apt-get install wireguard-go, or use a kernel that has the wireguard module",
        )


def refuse_missing_powers(end: EndState, seen: Survey) -> None:
    """Raise NotReadyError when the host is one that may not do what a gateway does, such as a container made for less;
    nothing was touched yet."""
    if not seen.powers >> CAP_NET_ADMIN & 1:
        raise NotReadyError(
            f"{end.host} may not change its network: it lacks the capability NET_ADMIN",
            hint=f"a container gets it by `--cap-add NET_ADMIN`; otherwise log in to {end.host} as root",
        )
    kernel = seen.tools.get("kernel", False) and end.plane != "userspace"
    if not (kernel or seen.present or seen.tools.get("tun", False) or end.plane == "kernel"):
        raise no_tun(end.host)
    for family in end.families:
        if family not in seen.forwarding:
            raise NotReadyError(
                f"{end.host} is to forward IPv{family} and has it switched off altogether",
                hint=f"give {end.host} IPv{family} (a container: `--sysctl net.ipv6.conf.all.disable_ipv6=0`), or leave"
                " out the prefixes of that family",
            )
        if family in seen.fixed and not seen.forwarding[family]:
            name = "net.ipv4.ip_forward" if family == 4 else "net.ipv6.conf.all.forwarding"
            raise NotReadyError(
                f"{end.host} does not forward IPv{family}, and its /proc/sys is read-only",
                hint=f"a container is to be started with `--sysctl {name}=1`; otherwise set it where {end.host} runs",
            )


def no_tun(host: str) -> NotReadyError:
    """The error for a host where wireguard-go has nothing to work with."""
    return NotReadyError(
        f"{host} has no /dev/net/tun, which wireguard-go needs, and no WireGuard in its kernel",
        hint="a container gets it by `--device /dev/net/tun`; otherwise load the module tun or wireguard",
    )


def refuse_collisions(end: EndState, seen: Survey, leaving: frozenset[str]) -> None:
    """Raise SpecError when something on the host is in the way; nothing was touched yet.

    `leaving` are interfaces of this stage that go before the new one comes; whose a port is cannot be seen, so then it
    is left to `wg` to complain."""
    _refuse_foreign_interface(end, seen)
    if end.port in seen.ports_in_use and seen.port != end.port and not leaving:
        raise SpecError(
            f"UDP port {end.port} of {end.host} is in use",
            hint=f"give the end {end.host} another `port`; `ss -lunp` on the host shows who has it",
        )
    own = {ip_interface(text).ip for text in end.addresses} | {ip_address(peer) for peer in end.peer_addresses}
    for device, texts in seen.others.items():
        for text in texts:
            if ip_interface(text).ip in own and device not in leaving:
                raise SpecError(
                    f"the tunnel's address {text} is in use on {end.host}, by {device}",
                    hint="name a free network of two addresses: `tunnel: 10.254.0.0/31`",
                )
    staying = [route for route in seen.routes if route.device not in leaving]
    in_the_way = list(shadowed(end.destinations, staying, end.interface, str(ROUTE_PROTOCOL)))
    in_the_way += list(_routed_by_another_link(end, staying))
    if in_the_way:
        raise SpecError(
            f"routes on {end.host} are in the way: {in_the_way[0]}",
            detail="\n".join(in_the_way[1:]),
            hint=f"correct the prefixes of the other sides, or remove what routes them on {end.host}",
        )


def _routed_by_another_link(end: EndState, routes: Sequence[Route]) -> Iterator[str]:
    """Routes of ours for the same prefix over another link's interface."""
    for route in routes:
        if route.protocol == str(ROUTE_PROTOCOL) and route.device != end.interface and route.prefix in end.destinations:
            yield f"{route.prefix} is already routed over another link, {route.device}"


def _refuse_foreign_interface(end: EndState, seen: Survey) -> None:
    if is_ours(end, seen) or not (seen.present or seen.owner):
        return
    whose = "" if seen.owner in ("", "?") else f": it belongs to {seen.owner}"
    raise SpecError(
        f"the interface name {end.interface} is taken on {end.host}{whose}",
        detail=""
        if whose
        else "there is an interface or a file of that name, and nothing says that this stage made it",
        hint="choose another name with `interface`, or remove what has it",
    )
