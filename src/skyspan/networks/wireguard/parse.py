"""What the survey of an end says, read into values: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from skyspan.networks.docker import NO_FILTERS, Filters, parse_filters
from skyspan.networks.looking import addresses, objects, pairs, routes, sections
from skyspan.networks.peers import OwnRoute, Route, own_routes
from skyspan.networks.proving import Probe, parse_probes

NEVER = 0
"""Stamp of a handshake that has not been."""


ALL_POWERS = (1 << 64) - 1
"""Every capability there may be."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer of the live interface. `handshake` is the time of the last one (epoch seconds by the host's clock),
    `received` how many bytes came from it."""

    public_key: str
    endpoint: str
    allowed_ips: tuple[str, ...]
    handshake: int
    keepalive: int
    received: int = 0


@dataclass(frozen=True, slots=True)
class Survey:
    """One host as seen. Everything about the interface is empty while `present` is false.

    `addresses` are those of the interface, `others` (by device) of all the rest. `digests` are of what is on the host:
    `config` and `rules` the files, `synced` the configuration last given to the interface, `table` the live nftables
    table, `loaded` the same just after it was loaded, `psk` the live shared keys. `powers` are the capabilities that
    commands have there, as a mask of bits (capabilities(7)). `fixed` are the IP versions whose forwarding nobody can
    switch there. `before` is what had come from each peer before the pings.
    """

    tools: Mapping[str, bool]
    now: int
    owner: str
    present: bool
    up: bool = False
    plane: str = ""
    mtu: int = 0
    public_key: str = ""
    port: int = 0
    peers: tuple[Peer, ...] = ()
    addresses: tuple[str, ...] = ()
    others: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    own_routes: tuple[OwnRoute, ...] = ()
    routes: tuple[Route, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)
    forwarding: Mapping[int, bool] = field(default_factory=dict)
    fixed: frozenset[int] = frozenset()
    filters: Filters = NO_FILTERS
    powers: int = ALL_POWERS
    ports_in_use: frozenset[int] = frozenset()
    probes: tuple[Probe, ...] = ()
    before: Mapping[str, int] = field(default_factory=dict)

    def peer(self, public_key: str) -> Peer | None:
        """The live peer with that key."""
        return next((peer for peer in self.peers if peer.public_key == public_key), None)


def parse_survey(text: str, interface: str) -> Survey:
    """The survey of `interface` on a host; raises ValueError or KeyError for what the script cannot have printed."""
    parts = sections(text)
    link = objects(parts["link"])
    seen = next((item for item in link if item.get("ifname") == interface), None)
    listen, peers = _dump(parts["wg"])
    others = addresses(objects(parts["addr"]))
    there = routes(parts["route4"], parts["route6"])
    kind = (seen or {}).get("linkinfo", {}).get("info_kind", "")
    return Survey(
        tools={name: found == "yes" for name, found in pairs(parts["tools"])},
        now=int(parts["time"].strip()),
        owner=parts["owner"].strip(),
        present=seen is not None,
        up="UP" in (seen or {}).get("flags", ()),
        plane={"wireguard": "kernel", "tun": "userspace"}.get(kind, kind),
        mtu=int((seen or {}).get("mtu", 0)),
        public_key=listen[0],
        port=int(listen[1]),
        peers=peers,
        addresses=others.pop(interface, ()),
        others=others,
        own_routes=own_routes(there, interface),
        routes=there,
        digests=dict(pairs(parts["digests"])),
        forwarding={int(family): value == "1" for family, value in pairs(parts["forward"])},
        fixed=frozenset(map(int, parts["fixed"].split())),
        filters=parse_filters(parts["docker"], parts["drops"]),
        powers=int(parts["powers"], 16),
        ports_in_use=_ports(parts["udp"]),
        probes=parse_probes(parts["probes"]),
        before={key: int(count) for key, count in pairs(parts.get("before", ""))},
    )


def _dump(text: str) -> tuple[tuple[str, str], tuple[Peer, ...]]:
    """`wg show IF dump` with its secrets blanked: the interface's line, then one per peer (wg(8), "show")."""
    rows = [line.split("\t") for line in text.splitlines() if line]
    if not rows:
        return ("", "0"), ()
    public, port = rows[0][1], rows[0][2]
    return ("" if public == "(none)" else public, port), tuple(_peer(row) for row in rows[1:])


def _peer(row: Sequence[str]) -> Peer:
    public, _, endpoint, allowed, handshake, received, _, keepalive = row
    return Peer(
        public_key=public,
        endpoint="" if endpoint == "(none)" else endpoint,
        allowed_ips=() if allowed == "(none)" else tuple(sorted(allowed.split(","))),
        handshake=int(handshake),
        keepalive=0 if keepalive == "off" else int(keepalive),
        received=int(received),
    )


def _ports(text: str) -> frozenset[int]:
    """The local ports of /proc/net/udp and udp6: second column, `ADDRESS:PORT` in hexadecimal (proc(5))."""
    columns = (line.split() for line in text.splitlines())
    return frozenset(
        int(column[1].rpartition(":")[2], 16) for column in columns if len(column) > 3 and column[0] != "sl"
    )
