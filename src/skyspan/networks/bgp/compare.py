"""How a speaker as seen differs from what it is to be, and what stands in the way of making it so: pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from types import MappingProxyType

from skyspan.model.change import Action, ResourceChange
from skyspan.model.error import NotReadyError, SpecError, ToolMissingError
from skyspan.model.secret import Secret
from skyspan.networks.addressing import stable_number
from skyspan.networks.bgp import bird, frr
from skyspan.networks.bgp.parse import Survey
from skyspan.networks.bgp.speaking import Instance
from skyspan.networks.looking import digest_of
from skyspan.networks.peers import shadowed

PACKAGES: Mapping[str, str] = MappingProxyType(
    {
        "ip": "iproute2",
        "ping": "iputils-ping",
        "flock": "util-linux",
        "sha256sum": "coreutils",
        "getent": "libc-bin",
    }
)
"""What a speaker needs besides its daemon, and the Debian package that has it."""

DAEMONS: Mapping[str, str] = MappingProxyType({"bird": "bird2", "frr": "frr"})
"""The daemons, in the order of preference, and the Debian package of each."""

LOWEST_METRIC = 1000
METRICS = 30000
"""The metric of an instance's routes in the kernel's table is one of this many, from the lowest on. BIRD takes a route
of its protocol number and metric for its own, so instances on one host must differ (user's guide, kernel protocol)."""

BFD_PORT = 3784
"""RFC 5881 section 4."""


@dataclass(frozen=True, slots=True)
class Made:
    """What is settled only by a look at the host: which daemon, and the metric of its routes."""

    daemon: str
    metric: int

    def config(self, instance: Instance) -> Secret:
        """The whole configuration."""
        if self.daemon == "bird":
            return bird.config_text(instance, self.metric, run_folder(instance.identity))
        return frr.config_text(instance)


def run_folder(identity: str) -> str:
    """Where an instance has its sockets."""
    return f"/run/skyspan-bgp/{identity}"


def settle(instance: Instance, seen: Survey) -> Made:
    """Which daemon it is to be: the named one, else the one it has, else the first that is installed; and its metric.
    Where none is installed it is the preferred one, whose absence `refuse_missing_tools` tells."""
    daemon = instance.wanted
    if daemon == "auto":
        has = [name for name in DAEMONS if seen.tools.get(name, False)]
        daemon = seen.daemon if seen.daemon in has else next(iter(has), "bird")
    if daemon == "frr":
        return Made(daemon, frr.METRIC)
    known = int(seen.facts.get("metric", "0"))
    if known >= LOWEST_METRIC:
        return Made(daemon, known)
    first = stable_number(instance.owner) % METRICS
    free = (LOWEST_METRIC + (first + step) % METRICS for step in range(METRICS))
    return Made(daemon, next(metric for metric in free if metric not in seen.metrics))


def peer_lines(instance: Instance, seen: Survey) -> tuple[str, ...]:
    """The addresses that must name their peer, as the scripts take them: `A 10.255.0.1 peer 10.255.0.2/32`, as a
    session over one link stays idle while the kernel does not know the peer to be on it."""
    return tuple(
        f"{item.local} {item.peering} {item.device or seen.device_of(item.local)}"
        for item in instance.conversations
        if item.peering
    )


def differences(instance: Instance, seen: Survey) -> Iterator[ResourceChange]:
    """What would have to change on the host, resource by resource; nothing when it is as it is to be."""
    made = settle(instance, seen)
    address = f"{instance.host}: {made.daemon} {instance.identity}"
    wanted = digest_of(made.config(instance).reveal())
    if "config" not in seen.facts:
        yield ResourceChange(address, Action.CREATE)
    elif seen.daemon != made.daemon:
        yield ResourceChange(address, Action.REPLACE, f"was {seen.daemon}")
    elif not seen.alive:
        yield ResourceChange(address, Action.UPDATE, "not running")
    elif seen.facts["config"] != wanted or seen.facts.get("loaded") != wanted:
        yield ResourceChange(f"{instance.host}: configuration of {made.daemon}", Action.UPDATE)
    elif seen.facts.get("running") != seen.facts.get("live"):
        yield ResourceChange(f"{instance.host}: configuration of {made.daemon}", Action.UPDATE, "changed by hand")
    for line in peer_lines(instance, seen):
        if line not in seen.peered:
            local, peer, _ = line.split(" ")
            yield ResourceChange(f"{instance.host}: address {local} peer {peer}", Action.CREATE)


def creation(instance: Instance) -> Iterator[ResourceChange]:
    """What making it from nothing makes."""
    daemon = "routing daemon" if instance.wanted == "auto" else instance.wanted
    yield ResourceChange(f"{instance.host}: {daemon} {instance.identity}", Action.CREATE)
    for item in instance.conversations:
        yield ResourceChange(f"{instance.host}: session with {item.peer_host} ({item.peer})", Action.CREATE)


def is_ours(instance: Instance, seen: Survey) -> bool:
    """Whether the host's mark of ownership says that this stage made the instance."""
    return seen.owner == instance.owner


def refuse_missing_tools(instance: Instance, seen: Survey) -> None:
    """Raise ToolMissingError, naming host and packages, when the host lacks what a speaker needs."""
    missing = [tool for tool in PACKAGES if not seen.tools.get(tool, False)]
    packages = [PACKAGES[tool] for tool in missing]
    daemon = settle(instance, seen).daemon
    if not seen.tools.get(daemon, False):
        missing.append("BIRD 2 and no FRR" if instance.wanted == "auto" else {"bird": "BIRD 2", "frr": "FRR"}[daemon])
        packages.append(DAEMONS[daemon])
    if missing:
        raise ToolMissingError(
            f"{instance.host} has no {', '.join(missing)}",
            hint=f"on {instance.host}: apt-get install {' '.join(packages)}",
        )


def refuse_collisions(instance: Instance, seen: Survey) -> None:
    """Raise StageError when something on the host is in the way; nothing was touched yet."""
    if seen.owner and not is_ours(instance, seen):
        raise SpecError(
            f"the name {instance.identity} is taken on {instance.host}: it belongs to {seen.owner}",
            hint="give the stage another name",
        )
    for item in instance.conversations:
        if not item.multihop and not seen.device_of(item.local):
            raise NotReadyError(
                f"{instance.host} has no address {item.local}: the link that the session is to run over is not there",
                hint="let this stage read the link's outputs, so that it comes after it",
            )
    connected = [route for route in seen.routes if route.connected]
    links = {item.device or seen.device_of(item.local) for item in instance.conversations}
    taken = [
        problem
        for net in instance.imports
        for problem in shadowed([net], [route for route in connected if route.device not in links], "", "")
    ]
    if taken:
        raise SpecError(
            f"{instance.host} would learn a network that it is connected to: {taken[0]}",
            detail="\n".join(taken[1:]),
            hint="correct what the other sides announce",
        )
    if not seen.alive or settle(instance, seen).daemon != seen.daemon:
        _refuse_other_daemons(instance, seen)


def _refuse_other_daemons(instance: Instance, seen: Survey) -> None:
    """A BIRD of ours lives beside any other daemon, bound to the link's addresses alone. A zebra takes every route of
    the routing daemons' protocol numbers for its own, so there can only be one in a host's network."""
    daemon = settle(instance, seen).daemon
    left = seen.daemon == "frr" and is_ours(instance, seen)
    if daemon == "frr" and seen.foreign:
        raise SpecError(
            f"{instance.host} runs an FRR already ({seen.foreign[0]}), and two cannot share a routing table",
            hint=f"use `daemon: bird` for {instance.host}: it runs beside any other daemon",
        )
    others = [route for route in seen.routes if route.protocol in _ZEBRAS]
    if daemon == "frr" and others and not left:
        raise SpecError(
            f"{instance.host} has routes of another routing daemon ({others[0].prefix}, proto {others[0].protocol}), "
            "which FRR would remove",
            hint=f"use `daemon: bird` for {instance.host}",
        )
    if seen.alive:
        return
    own = {item.local for item in instance.conversations}
    if any(_collides(socket, instance.port, own, every=daemon == "frr") for socket in seen.listens):
        raise SpecError(
            f"TCP port {instance.port} of {instance.host} is in use",
            hint="set another `port` (the link must admit it); `ss -lntp` on the host shows who has it",
        )
    if instance.bfd and any(_collides(socket, BFD_PORT, own, every=daemon == "frr") for socket in seen.datagrams):
        raise SpecError(
            f"UDP port {BFD_PORT} of {instance.host}, which BFD needs, is in use",
            hint="set `bfd: false`, or end what has it: `ss -lunp` on the host shows it",
        )


_ZEBRAS = frozenset({"bgp", "ospf", "isis", "rip", "eigrp", "babel", "zebra", "openfabric", "nhrp"})
"""Protocol numbers, as `ip` names them, whose routes a starting zebra takes for leftovers of its own."""


def _collides(socket: str, port: int, own: set[str], *, every: bool) -> bool:
    """Whether a socket of /proc/net (`ADDRESS:PORT` in hexadecimal, proc(5)) keeps us from listening: on every address,
    or on our own alone."""
    address, _, number = socket.rpartition(":")
    if int(number, 16) != port:
        return False
    raw = bytes.fromhex(address)
    swapped = b"".join(raw[start : start + 4][::-1] for start in range(0, len(raw), 4))
    found = ip_address(swapped)
    return every or found.is_unspecified or str(found) in own
