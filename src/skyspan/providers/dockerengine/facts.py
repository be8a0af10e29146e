"""What a stage tells of its containers and networks: outputs, pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from skyspan.model.value import digest
from skyspan.providers.dockerengine.parse import Container, Look, Network, Published

_ANYWHERE: Mapping[str, str] = MappingProxyType({"0.0.0.0": "IPv4", "::": "IPv6", "": "IPv4"})


def container_facts(container: Container) -> dict[str, Any]:
    """A container with its addresses per network."""
    return {
        "id": container.id,
        "name": container.name,
        "image": container.image,
        "state": container.state,
        "health": container.health,
        "addresses": {
            name: {"ipv4": end.ipv4, "ipv6": end.ipv6, "mac": end.mac}
            for name, end in sorted(container.networks.items())
        },
    }


def endpoints(container: Container, address: str) -> dict[str, str]:
    """By port of the container (`80/tcp`), where it can be reached from outside its machine, as `ADDRESS:PORT`.

    `address` is that of the machine. A port that is published on all addresses is at this one.
    """
    found: dict[str, str] = {}
    for place in sorted(container.ports, key=_preference):
        found.setdefault(place.port, _endpoint(place, address))
    return found


def network_facts(network: Network) -> dict[str, Any]:
    """A network with its first subnet and gateway, and all of them."""
    return {
        "id": network.id,
        "name": network.name,
        "driver": network.driver,
        "bridge": network.bridge,
        "subnet": network.subnets[0] if network.subnets else "",
        "gateway": network.gateways[0] if network.gateways else "",
        "subnets": list(network.subnets),
        "gateways": list(network.gateways),
        "internal": network.internal,
    }


def fingerprint(seen: Look, owner: str, *, stopped: bool) -> str:
    """Changes whenever a container or network of a stage does."""
    networks = sorted([one.id, one.name] for one in seen.networks_of(owner))
    return digest([_states(seen.owned(owner)), networks, stopped])


def _states(containers: Iterable[Container]) -> list[list[object]]:
    return sorted(
        [one.name, one.id, one.state, one.health, one.restarts, one.started_at, sorted(one.networks)]
        for one in containers
    )


def _preference(place: Published) -> tuple[int, str, int]:
    """An address of its own first, then all of IPv4, then all of IPv6."""
    kind = _ANYWHERE.get(place.address)
    return (0 if kind is None else 1 if kind == "IPv4" else 2, place.address, place.number)


def _endpoint(place: Published, address: str) -> str:
    host = place.address if place.address not in _ANYWHERE else address
    return f"[{host}]:{place.number}" if ":" in host else f"{host}:{place.number}"
