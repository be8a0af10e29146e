"""What is asked for beside what is there: differences, and what stands in the way (pure)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_network

from skyspan.model.change import Action, ResourceChange
from skyspan.model.error import SpecError
from skyspan.providers.docker.wanted import Wanted, WantedContainer, WantedNetwork
from skyspan.providers.dockerengine.parse import DIGEST, KEY, Container, Look, Network
from skyspan.providers.dockerengine.ready import judge
from skyspan.providers.dockerengine.refusing import refuse_absent_network, whose


@dataclass(frozen=True, slots=True)
class Difference:
    """One container, network, volume or image that is not as it is to be; `name` is that on the machine."""

    kind: str
    key: str
    name: str
    action: Action
    note: str = ""

    @property
    def resource(self) -> ResourceChange:
        """As a plan shows it."""
        return ResourceChange(f"{self.kind} {self.key}", self.action, self.note)


def differences(wanted: Wanted, seen: Look) -> tuple[Difference, ...]:
    """All of them: networks, volumes, images, containers."""
    networks = tuple(_networks(wanted, seen))
    moved = {item.name for item in networks if item.action is Action.REPLACE}
    return (*networks, *_volumes(wanted, seen), *_images(wanted, seen), *_containers(wanted, seen, moved))


def _networks(wanted: Wanted, seen: Look) -> Iterator[Difference]:
    names = set()
    for one in wanted.networks:
        names.add(one.name)
        there = seen.network(one.name)
        if one.external:
            continue
        if there is None:
            yield Difference("network", one.key, one.name, Action.CREATE, one.settings.subnet or "")
        elif there.labels.get(DIGEST) != one.digest:
            yield Difference("network", one.key, one.name, Action.REPLACE, "its settings differ")
    for network in seen.networks:
        if network.owner == wanted.owner and network.name not in names:
            yield Difference("network", network.labels.get(KEY, network.name), network.name, Action.DESTROY)


def _volumes(wanted: Wanted, seen: Look) -> Iterator[Difference]:
    for key, name in wanted.volumes.items():
        if name not in seen.volumes:
            yield Difference("volume", key, name, Action.CREATE)
    if wanted.remove_volumes:
        for name, owner in seen.volumes.items():
            if owner == wanted.owner and name not in wanted.volumes.values():
                yield Difference("volume", name, name, Action.DESTROY)


def _images(wanted: Wanted, seen: Look) -> Iterator[Difference]:
    for name, one in wanted.built.items():
        if not seen.images.get(name):
            yield Difference("image", one.key, name, Action.CREATE, f"built from {one.given}")


def _containers(wanted: Wanted, seen: Look, moved: set[str]) -> Iterator[Difference]:
    for key, one in wanted.containers.items():
        there = seen.container(one.name)
        action, note = _container(one, there, seen, moved)
        if action is not Action.NONE:
            yield Difference("container", key, one.name, action, note)
    for container in seen.owned(wanted.owner):
        if container.name not in wanted.names:
            yield Difference("container", container.labels.get(KEY, container.name), container.name, Action.DESTROY)


def _container(one: WantedContainer, there: Container | None, seen: Look, moved: set[str]) -> tuple[Action, str]:
    if there is None:
        return Action.CREATE, one.image
    if there.labels.get(DIGEST) != one.digest:
        return Action.REPLACE, "its settings differ"
    if moved & set(one.networks):
        return Action.REPLACE, "its network is made anew"
    image = seen.images.get(one.image, "")
    if image and there.image_id != image:
        return Action.REPLACE, f"{one.image} is another image now"
    if there.state == "created":
        return Action.REPLACE, "it was never started"
    lost = missing_networks(one, there)
    if lost:
        return Action.UPDATE, f"it is not in the network {', '.join(lost)}"
    found = judge(there, ends=one.ends)
    if not found.ready and there.health != "starting" and not (one.ends and there.state == "running"):
        return Action.UPDATE, found.reason
    return Action.NONE, ""


def missing_networks(one: WantedContainer, there: Container) -> tuple[str, ...]:
    """Networks that the container is to be in and is not."""
    return tuple(name for name in one.networks if name not in there.networks)


def refuse_collisions(wanted: Wanted, seen: Look, where: str) -> None:
    """Raise StageError for what belongs to somebody else or cannot be had; nothing was touched yet."""
    for one in wanted.containers.values():
        there = seen.container(one.name)
        if there is not None and there.owner != wanted.owner:
            raise SpecError(
                f"a container called {one.name} is on {where} already, and belongs to {whose(there.owner)}",
                hint=f"give container {one.key} another `name`, or remove the other one",
            )
    for net in wanted.networks:
        _refuse_network(net, wanted, seen, where)
    for name in wanted.volumes.values():
        owner = seen.volumes.get(name, wanted.owner)
        if owner != wanted.owner:
            raise SpecError(
                f"a volume called {name} is on {where} already, and belongs to {whose(owner)}",
                hint="give another `name`, or mount it by its name without declaring it",
            )


def _refuse_network(net: WantedNetwork, wanted: Wanted, seen: Look, where: str) -> None:
    there = seen.network(net.name)
    if net.external:
        refuse_absent_network(net.name, seen, where)
        return
    if there is not None and there.owner != wanted.owner:
        raise SpecError(
            f"a network called {net.name} is on {where} already, and belongs to {whose(there.owner)}",
            hint=f"give network {net.key} another `name`, or `external: true` to use that one",
        )
    if there is not None and there.labels.get(DIGEST) == net.digest:
        return
    others = [one for one in seen.networks if one.owner != wanted.owner]
    _refuse_subnets(net, others, seen, where)
    _refuse_bridge(net, others, there, seen, where)


def _refuse_subnets(net: WantedNetwork, others: list[Network], seen: Look, where: str) -> None:
    for subnet in filter(None, (net.settings.subnet, net.settings.subnet6)):
        asked = ip_network(subnet)
        for other in others:
            for taken in other.subnets:
                if asked.version == ip_network(taken).version and asked.overlaps(ip_network(taken, strict=False)):
                    raise SpecError(
                        f"the subnet {subnet} of network {net.key} overlaps {taken} of the network {other.name} "
                        f"on {where}",
                        hint="give another `subnet`",
                    )
        known = {ip_network(taken, strict=False) for one in seen.networks for taken in one.subnets}
        for route in seen.routes:
            # A wider route is none of our business: the narrower one of the network wins.
            if route not in known and route.version == asked.version and asked.supernet_of(route):  # type: ignore[arg-type]
                raise SpecError(
                    f"{where} has a route to {route} already, which is in the subnet {subnet} of network {net.key}",
                    hint="give another `subnet`: ip route shows what is in use",
                )


def _refuse_bridge(net: WantedNetwork, others: list[Network], there: Network | None, seen: Look, where: str) -> None:
    bridge = net.settings.bridge
    if bridge is None:
        return
    owner = next((one.name for one in others if one.bridge == bridge), None)
    mine = {one.bridge for one in seen.networks} - {one.bridge for one in others}
    if owner is not None or (bridge in seen.links and bridge not in mine):
        taken = f"the bridge of network {owner}" if owner is not None else "an interface there"
        raise SpecError(f"{bridge} is {taken} on {where} already", hint="give another `bridge`")
