"""What the survey of a host says, read into values: pure.

The fields are those of tailscale's ipn/ipnstate.Status and ipn.Prefs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from skyspan.networks.looking import pairs, sections

DEFAULT_SERVER = "https://controlplane.tailscale.com"
"""Tailscale's own control server; its older name means the same."""

_OLD_SERVER = "https://login.tailscale.com"


@dataclass(frozen=True, slots=True)
class Node:
    """The daemon's own state. `name` is its name in the tailnet without the dot at its end, `suffix` the tailnet's
    domain; `tags` and `routes` (those that the server has approved) are sorted. `has_key` is true while it is
    logged in, and after a logout that its server has not heard of."""

    state: str
    version: str = ""
    tun: bool = True
    has_key: bool = False
    name: str = ""
    suffix: str = ""
    addresses: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    health: tuple[str, ...] = ()
    expired: bool = False
    key_expiry: str = ""
    online: bool = False


@dataclass(frozen=True, slots=True)
class Prefs:
    """The daemon's settings."""

    server: str = DEFAULT_SERVER
    hostname: str = ""
    accept_dns: bool = True
    accept_routes: bool = False
    routes: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Survey:
    """One host as seen. `node` is None when the daemon does not answer (`trouble` then says how) or is not there;
    `marks` is what this host records of us: `joined`, `prior`, `installed`. `peers` are the routes of other members,
    by name, where they were asked for. `led` is whether what the kernel sends to members finds its way into the
    tunnel."""

    system: tuple[str, str]
    tools: Mapping[str, bool]
    manager: str
    now: int
    owner: str = ""
    marks: frozenset[str] = frozenset()
    forwarding: Mapping[int, bool] = field(default_factory=dict)
    version: str = ""
    node: Node | None = None
    prefs: Prefs = Prefs()
    peers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    led: bool = True
    trouble: str = ""

    @property
    def installed(self) -> bool:
        """Whether both programs are there."""
        return self.tools.get("tailscale", False) and self.tools.get("tailscaled", False)

    @property
    def state(self) -> str:
        """The daemon's state, in one word."""
        return self.node.state if self.node is not None else "not running" if self.installed else "not installed"


def parse_survey(text: str) -> Survey:
    """Raises ValueError or KeyError for what the script cannot have printed."""
    parts = sections(text)
    system = parts["os"].split()
    return Survey(
        system=(system[0], system[1]) if len(system) == 2 else ("unknown", "-"),
        tools={name: found == "yes" for name, found in pairs(parts["tools"])},
        manager=parts["manager"].strip(),
        now=int(parts["time"].strip()),
        owner=parts["owner"].strip(),
        marks=frozenset(parts["marks"].split()),
        forwarding={int(family): value == "1" for family, value in pairs(parts["forward"])},
        version=_version(parts.get("version", "")),
        node=parse_status(parts["status"]) if parts.get("status", "").strip() else None,
        prefs=_prefs(json.loads(parts["prefs"])) if parts.get("prefs", "").strip() else Prefs(),
        peers=_peers(parts.get("peers", "")),
        led="led" not in parts or bool(parts["led"].strip()),
        trouble=parts.get("trouble", "").strip(),
    )


def _version(text: str) -> str:
    """`tailscale version --json`, or the first line of the plain form, which older ones print."""
    try:
        said = json.loads(text)
    except ValueError:
        return text.strip().partition("-")[0]
    return str(said["majorMinorPatch"]) if isinstance(said, dict) else str(said)


def parse_status(text: str) -> Node:
    """`tailscale status --json`. It exits with 0 even when logged out, so the state is in it, not in the status."""
    said: Mapping[str, Any] = json.loads(text)
    me: Mapping[str, Any] = said.get("Self") or {}
    tailnet: Mapping[str, Any] = said.get("CurrentTailnet") or {}
    expiry = str(me.get("KeyExpiry") or "")
    addresses = tuple(said.get("TailscaleIPs") or me.get("TailscaleIPs") or ())
    return Node(
        state=str(said["BackendState"]),
        version=str(said.get("Version") or "").partition("-")[0],
        tun=bool(said.get("TUN")),
        has_key=bool(said.get("HaveNodeKey")),
        name=str(me.get("DNSName") or "").removesuffix("."),
        suffix=str(tailnet.get("MagicDNSSuffix") or said.get("MagicDNSSuffix") or "").strip("."),
        addresses=tuple(map(str, addresses)),
        tags=tuple(sorted(me.get("Tags") or ())),
        routes=_routes(me, addresses),
        health=tuple(str(line) for line in said.get("Health") or ()),
        expired=bool(me.get("Expired")),
        # The zero time of Go's library stands for a key that does not expire.
        key_expiry="" if expiry.startswith("0001-") else expiry,
        online=bool(me.get("Online")),
    )


def _routes(me: Mapping[str, Any], addresses: tuple[Any, ...]) -> tuple[str, ...]:
    """The networks that the server lets others reach by this member: of its AllowedIPs those that are not its own."""
    own = {f"{address}/{128 if ':' in str(address) else 32}" for address in addresses}
    return tuple(sorted({*(me.get("PrimaryRoutes") or ()), *(me.get("AllowedIPs") or ())} - own))


def _peers(text: str) -> dict[str, tuple[str, ...]]:
    peers = json.loads(text).get("Peer") if text.strip() else None
    return {
        str(peer.get("DNSName") or "").removesuffix("."): _routes(peer, tuple(peer.get("TailscaleIPs") or ()))
        for peer in (peers or {}).values()
    }


def _prefs(said: Mapping[str, Any]) -> Prefs:
    return Prefs(
        server=server_of(str(said.get("ControlURL") or "")),
        hostname=str(said.get("Hostname") or ""),
        accept_dns=bool(said.get("CorpDNS")),
        accept_routes=bool(said.get("RouteAll")),
        routes=tuple(sorted(said.get("AdvertiseRoutes") or ())),
        tags=tuple(sorted(said.get("AdvertiseTags") or ())),
    )


def server_of(address: str) -> str:
    """A control server's address in one form, for comparison."""
    plain = address.rstrip("/")
    return DEFAULT_SERVER if plain in ("", _OLD_SERVER) else plain
