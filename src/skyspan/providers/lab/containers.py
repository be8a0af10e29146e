"""One look at a host with labs: its containers by label with the interfaces inside, Docker's networks, and routes.

A look is one command, whatever the number of nodes; the script is READ, what it prints is read into values here.
Interfaces are listed by the host's own `ip` inside a container's network namespace: images need not have one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from skyspan.contracts.transport import Command, Completed, Effect
from skyspan.model.error import CredentialsError, StageError, ToolFailedError, ToolMissingError
from skyspan.providers.lab.management import Network
from skyspan.providers.lab.topology import LabInterface, LabLink

LAB_LABEL = "containerlab"
"""containerlab's label with a lab's name on its containers, and without a value on its networks."""
NODE_LABEL, KIND_LABEL, TOPOLOGY_LABEL = "clab-node-name", "clab-node-kind", "clab-topo-file"
"""containerlab's labels with a node's name and kind, and the absolute path of the topology."""

TIMEOUT_S = 60.0
_NO_DOCKER = 90

AS_ROOT = r"""
PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/sbin; export PATH LC_ALL=C
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }
"""
"""A fragment of POSIX sh: `as_root COMMAND…` for root and for who may use sudo without a password."""

_LOOK = (
    AS_ROOT
    + r"""
command -v docker >/dev/null || exit 90
label=$1 format=$2 more=$3; shift 3
ids=$(as_root docker ps -aq --no-trunc --filter "label=$label")
if [ $# != 0 ]; then ids="$ids $(as_root docker inspect --format '{{.Id}}' "$@" 2>/dev/null || :)"; fi
found=
# A container may go between the two calls; then the others are told, unless Docker itself is gone.
if [ -n "${ids# }" ]; then
  found=$(as_root docker inspect --format "$format" $ids) || as_root docker version >/dev/null
fi
echo @containers
printf '%s\n' "$found" | sed 's/^[^ ]* [^ ]* *//'
printf '%s\n' "$found" | while read -r pid id rest; do
  if [ "${pid:-0}" != 0 ]; then
    echo "@interfaces $id"
    as_root nsenter -t "$pid" -n ip -j address show 2>/dev/null || :
    echo
  fi
done
if [ "$more" = networks ]; then
  echo @networks
  as_root docker network inspect --format '{{json .}}' $(as_root docker network ls -q) || :
  echo @routes
  ip -j route show table all; echo; ip -j -6 route show table all; echo
fi
"""
)

_FORBIDDEN = re.compile(
    r"permission denied|sudo: a (?:password|terminal) is required|sudo: (?:command )?not found|not in the sudoers file",
    re.IGNORECASE,
)

_FORMAT = (
    "{{.State.Pid}} {{.Id}} "
    '{"id":{{json .Id}},"name":{{json .Name}},"image":{{json .Config.Image}},"image_id":{{json .Image}},'
    '"labels":{{json .Config.Labels}},"state":{{json .State}},"networks":{{json .NetworkSettings.Networks}},'
    '"ports":{{json .NetworkSettings.Ports}}}'
)


@dataclass(frozen=True, slots=True)
class Interface(LabInterface):
    """An interface with its index in its network namespace: another index is another interface."""

    index: int = 0


@dataclass(frozen=True, slots=True)
class Attached:
    """A container's place in one of Docker's networks; addresses without a length, empty when there is none."""

    network: str
    ipv4: str = ""
    ipv6: str = ""


@dataclass(frozen=True, slots=True)
class Container:
    """A container as Docker shows it. `state` is Docker's word, `health` that of its health check (empty: none);
    `ports` are (port in the container, address, port on the host). `interfaces` are empty while it does not run."""

    id: str
    name: str
    image: str
    state: str
    labels: Mapping[str, str] = field(default_factory=dict)
    image_id: str = ""
    health: str = ""
    started_at: str = ""
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    attached: tuple[Attached, ...] = ()
    ports: tuple[tuple[str, str, int], ...] = ()
    interfaces: tuple[Interface, ...] = ()

    @property
    def running(self) -> bool:
        """Whether its processes run."""
        return self.state == "running"

    def interface(self, name: str) -> Interface | None:
        """Its interface of that name."""
        return next((item for item in self.interfaces if item.name == name), None)


@dataclass(frozen=True, slots=True)
class DockerNetwork:
    """One of Docker's networks: its bridge (empty: not one of that kind), subnets, and whether containerlab made it."""

    name: str
    id: str
    bridge: str
    subnets: tuple[Network, ...]
    by_containerlab: bool = False
    containers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HostLook:
    """What a look showed. `networks` and `routes` (destination, device) are empty when they were not asked for."""

    containers: tuple[Container, ...] = ()
    networks: tuple[DockerNetwork, ...] = ()
    routes: tuple[tuple[Network, str], ...] = ()

    def taken(self, besides: Iterable[str] = ()) -> list[tuple[str, Network]]:
        """The networks that the host has, with who has them; those of Docker's networks named in `besides`, and of
        their bridges, left out, and the default route too."""
        left_out = set(besides)
        bridges = {net.bridge for net in self.networks if net.name in left_out}
        named = [
            (f"Docker's network {net.name}", subnet)
            for net in self.networks
            if net.name not in left_out
            for subnet in net.subnets
        ]
        known = {subnet for net in self.networks for subnet in net.subnets}
        routed = [
            (f"a route over {device}", network)
            for network, device in self.routes
            if network not in known and device not in bridges and network.prefixlen
        ]
        return named + routed


def look_command(label: str, *, networks: bool = False, names: Sequence[str] = ()) -> Command:
    """Look at the containers with that label (`containerlab=NAME`, or the label's name alone), and at those called so,
    where they are there."""
    argv = ("sh", "-euc", _LOOK, "skyspan", label, _FORMAT, "networks" if networks else "", *names)
    return Command(argv, timeout_s=TIMEOUT_S, effect=Effect.READ)


def read_look(done: Completed, where: str) -> HostLook:
    """What a look printed; `where` names the host in errors. Raises a StageError that says what is wrong there."""
    if not done.ok:
        raise docker_trouble(done, where, "looking at the containers")
    try:
        return parse_look(done.text())
    except (ValueError, KeyError, TypeError) as error:
        raise ToolFailedError(
            f"what Docker on {where} says of its containers cannot be read",
            detail=f"{type(error).__name__}: {error}",
            hint="is its version 20.10 or later, and iproute2 there with `ip -j`?",
        ) from error


def docker_trouble(done: Completed, where: str, what: str) -> StageError:
    """The error for a command that needs Docker, by its last words."""
    words = done.last_words()
    if done.exit_code == _NO_DOCKER or "docker: not found" in words or "docker: command not found" in words:
        hint = f"install Docker Engine on {where} (`apt-get install docker.io`, or Docker's own packages)"
        return ToolMissingError(f"there is no docker on {where}", detail=words, hint=hint)
    if _FORBIDDEN.search(words):
        hint = f"log in as root, or let the user run sudo without a password on {where}"
        return CredentialsError(f"no permission to use Docker on {where}", detail=words, hint=hint)
    if "Cannot connect to the Docker daemon" in words or "Is the docker daemon running" in words:
        hint = f"start it on {where}: `systemctl start docker`"
        return ToolMissingError(f"Docker does not run on {where}", detail=words, hint=hint)
    if "no space left on device" in words.lower():
        hint = "make room: `docker system df` shows what Docker holds, `docker image prune` removes images of no use"
        return ToolFailedError(f"the disk of {where} is full: {what} failed", detail=words, hint=hint)
    ended = "took too long" if done.timed_out else f"failed (exit status {done.exit_code})"
    return ToolFailedError(f"{what} on {where} {ended}", detail=words)


def parse_look(text: str) -> HostLook:
    """What the script printed; raises ValueError, KeyError or TypeError for what it cannot have."""
    sections: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("@"):
            lines = sections.setdefault(line[1:], [])
        elif line.strip():
            lines.append(line)
    inside = {
        name.removeprefix("interfaces "): tuple(_interfaces(content))
        for name, content in sections.items()
        if name.startswith("interfaces ")
    }
    containers = (_container(json.loads(line), inside) for line in sections.get("containers", ()))
    return HostLook(
        containers=tuple(sorted(containers, key=lambda item: item.name)),
        networks=tuple(_network(json.loads(line)) for line in sections.get("networks", ())),
        routes=tuple(route for line in sections.get("routes", ()) for route in _routes(json.loads(line))),
    )


def lost_interfaces(links: Sequence[LabLink], by_node: Mapping[str, Container]) -> dict[str, tuple[str, ...]]:
    """By node, the interfaces of its links that a running container does not have."""
    lost: dict[str, list[str]] = {}
    for link in links:
        for node, interface in link.ends:
            container = by_node.get(node)
            if container is not None and container.running and container.interface(interface) is None:
                lost.setdefault(node, []).append(interface)
    return {node: tuple(names) for node, names in lost.items()}


def _container(item: Mapping[str, Any], inside: Mapping[str, tuple[Interface, ...]]) -> Container:
    state = item["state"]
    attached = (
        Attached(name, found.get("IPAddress", ""), found.get("GlobalIPv6Address", ""))
        for name, found in sorted((item["networks"] or {}).items())
    )
    ports = (
        (port, binding.get("HostIp", ""), int(binding["HostPort"]))
        for port, bindings in sorted((item["ports"] or {}).items())
        for binding in bindings or ()
    )
    return Container(
        id=item["id"],
        name=item["name"].removeprefix("/"),
        image=item["image"],
        image_id=item["image_id"],
        labels=item["labels"] or {},
        state=state["Status"],
        health=(state.get("Health") or {}).get("Status", ""),
        started_at=state["StartedAt"],
        pid=state["Pid"],
        exit_code=state["ExitCode"],
        error=state.get("Error", ""),
        attached=tuple(attached),
        ports=tuple(ports),
        interfaces=inside.get(item["id"], ()),
    )


def _interfaces(lines: Sequence[str]) -> list[Interface]:
    return [
        Interface(
            name=item["ifname"],
            up="UP" in item["flags"],
            mac=item.get("address", ""),
            addresses=tuple(
                str(ip_interface(f"{info['local']}/{info['prefixlen']}"))
                for info in item.get("addr_info", ())
                if "local" in info and info.get("scope") == "global" and not ip_address(info["local"]).is_loopback
            ),
            index=item["ifindex"],
        )
        for line in lines
        for item in json.loads(line)
        if item
    ]


def _network(item: Mapping[str, Any]) -> DockerNetwork:
    options, labels = item.get("Options") or {}, item.get("Labels") or {}
    bridge = options.get("com.docker.network.bridge.name", "")
    if item["Driver"] == "bridge" and not bridge:
        bridge = f"br-{item['Id'][:12]}"
    subnets = (config["Subnet"] for config in (item.get("IPAM") or {}).get("Config") or () if config.get("Subnet"))
    return DockerNetwork(
        name=item["Name"],
        id=item["Id"],
        bridge=bridge,
        subnets=tuple(ip_network(subnet, strict=False) for subnet in subnets),
        by_containerlab=LAB_LABEL in labels,
        containers=tuple(sorted(found["Name"] for found in (item.get("Containers") or {}).values())),
    )


def _routes(items: Sequence[Mapping[str, Any]]) -> list[tuple[Network, str]]:
    """Destinations of unicast routes; single addresses that the host itself has are left out, as are link-local and
    multicast ones."""
    found = []
    for item in items:
        if not item or item.get("type", "unicast") != "unicast" or item["dst"] == "default":
            continue
        network = ip_network(item["dst"], strict=False)
        if not (network.is_link_local or network.is_multicast or network.is_loopback):
            found.append((network, item.get("dev", "")))
    return found
