"""What a Docker daemon says of itself and of what it runs, as values: pure.

The facts are those of `docker version`, `docker container inspect` and `docker network inspect` (Docker Engine API 1.40
and later, "Inspect a container" and "Inspect a network").
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from types import MappingProxyType
from typing import Any

OWNER = "skyspan.stage"
"""Label of everything that a stage made: `WORKSPACE/DEPLOYMENT/STAGE`."""

BUILT = "skyspan.image"
"""Label of an image that a stage built, with the same: containers inherit the labels of their images, and would be
taken for the stage's if it were the other one."""

KEY = "skyspan.key"
"""Label with the name that the settings give to a container or a network."""

DIGEST = "skyspan.digest"
"""Label with the digest of the settings that it was made from."""

_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Attachment:
    """A container in a network."""

    ipv4: str = ""
    ipv6: str = ""
    mac: str = ""


@dataclass(frozen=True, slots=True, order=True)
class Published:
    """A port of a container (`80/tcp`) at an address and port of its machine."""

    port: str
    address: str
    number: int


@dataclass(frozen=True, slots=True)
class Container:
    """A container as the daemon shows it. `state` is created, running, paused, restarting, removing, exited or dead;
    `health` is starting, healthy, unhealthy or empty where there is no check; `said` is what that said last."""

    id: str
    name: str
    state: str
    image: str = ""
    image_id: str = ""
    health: str = ""
    exit_code: int = 0
    error: str = ""
    said: str = ""
    restarts: int = 0
    started_at: str = ""
    labels: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    networks: Mapping[str, Attachment] = field(default_factory=lambda: MappingProxyType({}))
    ports: tuple[Published, ...] = ()

    @property
    def owner(self) -> str:
        """The stage that made it; empty for others' ones."""
        return self.labels.get(OWNER, "")


@dataclass(frozen=True, slots=True)
class Network:
    """A network as the daemon shows it; `containers` are the names of those in it that run."""

    id: str
    name: str
    driver: str = "bridge"
    subnets: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    bridge: str = ""
    internal: bool = False
    labels: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    containers: tuple[str, ...] = ()

    @property
    def owner(self) -> str:
        """The stage that made it; empty for others' ones."""
        return self.labels.get(OWNER, "")


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a daemon, as far as it went: what was not asked for is empty.

    `volumes` tells the owner of each, `images` the id of each image asked for ("" for one that is not there), `built`
    are the names of images that are marked as the stage's own, or their ids where a newer one took the name, `routes`
    the prefixes that the place of the command has routes to, `links` its interfaces.
    """

    version: str
    api: tuple[int, int]
    containers: tuple[Container, ...] = ()
    networks: tuple[Network, ...] = ()
    volumes: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    images: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    built: tuple[str, ...] = ()
    routes: tuple[IPv4Network | IPv6Network, ...] = ()
    links: frozenset[str] = frozenset()

    def container(self, name: str) -> Container | None:
        """The container of that name."""
        return next((item for item in self.containers if item.name == name), None)

    def network(self, name: str) -> Network | None:
        """The network of that name."""
        return next((item for item in self.networks if item.name == name), None)

    def owned(self, owner: str) -> tuple[Container, ...]:
        """The containers of a stage."""
        return tuple(item for item in self.containers if item.owner == owner)

    def networks_of(self, owner: str) -> tuple[Network, ...]:
        """The networks of a stage."""
        return tuple(item for item in self.networks if item.owner == owner)


def parse_look(text: str) -> Look:
    """What the look script prints; raises ValueError for what it cannot have printed."""
    parts = _sections(text)
    version, api = parse_version(parts["version"]) if "version" in parts else ("", (0, 0))
    return Look(
        version=version,
        api=api,
        containers=tuple(_container(line) for line in parts.get("containers", "").splitlines()),
        networks=tuple(_network(json.loads(line)) for line in parts.get("networks", "").splitlines()),
        volumes=dict(_pairs(parts.get("volumes", ""))),
        images=dict(_pairs(parts.get("images", ""))),
        built=tuple(parts.get("built", "").split()),
        routes=tuple(_routes(parts.get("routes", ""))),
        links=frozenset(parts.get("links", "").split()),
    )


def parse_version(text: str) -> tuple[str, tuple[int, int]]:
    """The daemon's version and that of its API; raises ValueError when there is none."""
    server = (json.loads(text) or {}).get("Server")
    if not server:
        msg = "no server answered"
        raise ValueError(msg)
    major, _, minor = str(server["ApiVersion"]).partition(".")
    return str(server["Version"]), (int(major), int(minor))


def _sections(text: str) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if re.fullmatch(r"@[a-z]+", line):
            lines = found.setdefault(line[1:], [])
        elif line.strip():
            lines.append(line)
    return {name: "\n".join(content) for name, content in found.items()}


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        yield name, value.strip()


def _container(line: str) -> Container:
    item = json.loads(line)
    state = item["state"]
    health = state.get("Health") or {}
    log = health.get("Log") or []
    settings = item["net"]
    return Container(
        id=item["id"],
        name=item["name"].removeprefix("/"),
        state=state["Status"],
        image=item["image"],
        image_id=item["image_id"],
        health="" if health.get("Status", "none") == "none" else health["Status"],
        exit_code=int(state.get("ExitCode", 0)),
        error=state.get("Error") or "",
        said=str(log[-1].get("Output", "")).strip() if log else "",
        restarts=int(item.get("restarts") or 0),
        started_at=state.get("StartedAt", ""),
        labels=item.get("labels") or {},
        networks={name: _attachment(end) for name, end in (settings.get("Networks") or {}).items()},
        ports=tuple(sorted(_published(settings.get("Ports") or {}))),
    )


def _attachment(end: Mapping[str, Any]) -> Attachment:
    return Attachment(end.get("IPAddress") or "", end.get("GlobalIPv6Address") or "", end.get("MacAddress") or "")


def _published(ports: Mapping[str, Any]) -> Iterator[Published]:
    for port, places in ports.items():
        for place in places or ():
            yield Published(port, place.get("HostIp") or "0.0.0.0", int(place["HostPort"]))


def _network(item: Mapping[str, Any]) -> Network:
    configured = [entry for entry in (item.get("IPAM") or {}).get("Config") or () if entry.get("Subnet")]
    bridge = (item.get("Options") or {}).get("com.docker.network.bridge.name", "")
    if not bridge and item["Driver"] == "bridge":
        bridge = f"br-{item['Id'][:12]}"
    return Network(
        id=item["Id"],
        name=item["Name"],
        driver=item["Driver"],
        subnets=tuple(entry["Subnet"] for entry in configured),
        gateways=tuple(_gateway(entry) for entry in configured),
        bridge=bridge,
        internal=bool(item.get("Internal")),
        labels=item.get("Labels") or {},
        containers=tuple(sorted(end["Name"] for end in (item.get("Containers") or {}).values())),
    )


def _gateway(entry: Mapping[str, Any]) -> str:
    """What is not said is the network's first address, which Docker takes itself."""
    given = str(entry.get("Gateway") or "").partition("/")[0]
    return given or str(ip_network(entry["Subnet"], strict=False)[1])


def _routes(text: str) -> Iterator[IPv4Network | IPv6Network]:
    for line in text.splitlines():
        try:
            network = ip_network(line.split()[0])
        except ValueError:
            continue  # `default`, and kinds of routes that lead nowhere (`unreachable …`)
        yield network
