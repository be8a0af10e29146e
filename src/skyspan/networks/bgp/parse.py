"""What the survey of a speaker says, read into values: pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_interface, ip_network

from skyspan.networks import looking
from skyspan.networks.addressing import Network
from skyspan.networks.bgp import bird, frr
from skyspan.networks.bgp.speaking import Conversation, Instance
from skyspan.networks.peers import Route


@dataclass(frozen=True, slots=True)
class Heard:
    """One session as one side has it. `bfd` is None where there is no BFD session for it. `refused` are prefixes that
    the peer sent and the import list kept out."""

    state: str = ""
    error: str = ""
    bfd: bool | None = None
    received: frozenset[str] = frozenset()
    sent: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()

    @property
    def established(self) -> bool:
        """Whether prefixes are exchanged."""
        return self.state == "Established"


@dataclass(frozen=True, slots=True)
class NextHop:
    """Which way the kernel sends what goes to an address; both empty where it has no way."""

    device: str = ""
    gateway: str = ""


@dataclass(frozen=True, slots=True)
class Survey:
    """One host as seen. `facts` are what the host's records say of the instance, digests among them: `config` the file,
    `loaded` what was last given to the daemon, `running` what FRR said it ran then, `live` what it says now.

    `peered` are addresses that name a peer, as lines of address, peer and device. `listens` are the TCP sockets and
    `datagrams` the UDP sockets, as /proc/net writes them. `foreign` are zebras of others. `allowed` is, by WireGuard
    interface, what each peer may be sent.
    """

    tools: Mapping[str, bool]
    facts: Mapping[str, str]
    alive: bool
    metrics: frozenset[int] = frozenset()
    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    peered: frozenset[str] = frozenset()
    routes: tuple[Route, ...] = ()
    next_hops: Mapping[str, NextHop] = field(default_factory=dict)
    foreign: tuple[str, ...] = ()
    listens: tuple[str, ...] = ()
    datagrams: tuple[str, ...] = ()
    allowed: Mapping[str, tuple[tuple[Network, ...], ...]] = field(default_factory=dict)
    heard: Mapping[str, Heard] = field(default_factory=dict)

    @property
    def owner(self) -> str:
        """Whose the instance is, by the host's own record."""
        return self.facts.get("owner", "")

    @property
    def daemon(self) -> str:
        """Which daemon the instance has had until now."""
        return self.facts.get("daemon", "")

    def device_of(self, address: str) -> str:
        """The interface that has this address; empty when none has."""
        has = (name for name, texts in self.addresses.items() if address in {str(ip_interface(t).ip) for t in texts})
        return next(has, "")


def parse_survey(text: str, instance: Instance) -> Survey:
    """The survey of a host; raises ValueError, KeyError or IndexError for what the script cannot have printed."""
    parts = looking.sections(text)
    facts = dict(looking.pairs(parts["facts"]))
    return Survey(
        tools={name: found == "yes" for name, found in looking.pairs(parts["tools"])},
        facts=facts,
        alive=facts["alive"] == "yes",
        metrics=frozenset(int(line) for line in parts["metrics"].splitlines()),
        addresses=looking.addresses(looking.objects(parts["addr"])),
        peered=frozenset(parts["peered"].splitlines()),
        routes=looking.routes(parts["route4"], parts["route6"]),
        next_hops={target: _next_hop(answer) for target, answer in looking.pairs(parts["next"])},
        foreign=tuple(parts["foreign"].splitlines()),
        listens=tuple(parts["tcp"].split()),
        datagrams=tuple(parts["udp"].split()),
        allowed=_allowed(parts["wg"].splitlines()),
        heard=dict(_heard(parts, facts.get("daemon", ""), instance.conversations)) if facts["alive"] == "yes" else {},
    )


def _next_hop(answer: str) -> NextHop:
    found = looking.objects(answer)
    if not found:
        return NextHop()
    return NextHop(found[0].get("dev", ""), found[0].get("gateway") or found[0].get("via", {}).get("host", ""))


def _allowed(lines: Iterable[str]) -> dict[str, tuple[tuple[Network, ...], ...]]:
    """Of `wg show all allowed-ips`: interface, public key and prefixes, by tabs and spaces."""
    found: dict[str, tuple[tuple[Network, ...], ...]] = {}
    for line in lines:
        interface, _, prefixes = line.split("\t")
        nets = tuple(ip_network(prefix) for prefix in prefixes.split() if prefix != "(none)")
        found[interface] = (*found.get(interface, ()), nets)
    return found


def _heard(parts: Mapping[str, str], daemon: str, conversations: Sequence[Conversation]) -> Iterable[tuple[str, Heard]]:
    if daemon == "bird":
        sessions, bfd = bird.read_sessions(parts["sessions"]), bird.read_bfd(parts["bfd"])
    else:
        tables = [parts.get(f"show bgp vrf default {table} json", "") for table in ("summary", "neighbors")]
        sessions, bfd = frr.read_sessions(*tables), frr.read_bfd(parts.get("show bfd peers json", ""))
    for item in conversations:
        if daemon == "bird":
            state, error = sessions.get(item.name, ("", ""))
            lists = [bird.read_routes(parts[f"{what}/{item.name}"]) for what in ("received", "sent", "refused")]
        else:
            state, error = sessions.get(item.peer, ("", ""))
            show = f"show bgp ipv{item.version} unicast neighbors {item.peer}"
            lists = [
                frr.read_routes(parts.get(f"{show} {what} json", ""))
                for what in ("routes", "advertised-routes", "filtered-routes")
            ]
        yield item.name, Heard(state, error, bfd.get(item.peer), *lists)
