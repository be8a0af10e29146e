"""What a containerlab stage sees of its lab: facts, health, drift and a fingerprint; pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from skyspan.contracts.host import Host
from skyspan.model.change import Observation, ResourceChange
from skyspan.model.value import OutputValue, digest
from skyspan.providers.containerlab import compare
from skyspan.providers.containerlab.memory import Memory
from skyspan.providers.containerlab.topology import Node, Topology
from skyspan.providers.lab.containers import Container
from skyspan.providers.lab.facts import Lab, outputs
from skyspan.providers.lab.topology import LabInterface, LabNode


def observation(
    topology: Topology,
    memory: Memory,
    containers: Mapping[str, Container],
    host: Host | None,
    instructed: Collection[str] = (),
    changed: tuple[ResourceChange, ...] = (),
) -> Observation:
    """`containers` are the stage's by node, `instructed` nodes with commands of the settings; `changed` is what its
    files changed since they were applied."""
    known = {node.name for node in topology.nodes}
    strangers = [item.name for name, item in containers.items() if name not in known]
    found = compare.drift(topology, memory.settled, containers, strangers, instructed)
    troubles = [_words(item) for item in found]
    troubles += [f"node {name} is unhealthy" for name, item in sorted(containers.items()) if item.health == "unhealthy"]
    if memory.stopped and not any(item.running for item in containers.values()):
        troubles = ["it is stopped"]
    lab = Lab(
        topology.name,
        tuple(_node(node, containers.get(node.name)) for node in topology.nodes),
        topology.links,
        memory.management,
    )
    drift = (*found, *(item for item in changed if item.address not in {known.address for known in found}))
    reason = "; ".join([*troubles[:3], *([f"and {len(troubles) - 3} more"] if len(troubles) > 3 else [])])
    return Observation(
        exists=True,
        healthy=not troubles,
        drifted=bool(drift),
        fingerprint=_fingerprint(containers),
        reason=reason or (f"changed since it was applied: {_words(changed[0])}" if changed else ""),
        outputs={name: OutputValue(value) for name, value in outputs(lab, host).items()},
        drift=drift,
    )


def _words(item: ResourceChange) -> str:
    return f"{item.address}: {item.note}" if item.note else item.address


def _node(node: Node, container: Container | None) -> LabNode:
    if container is None:
        state = "absent" if node.container else "external"
        return LabNode(node.name, node.kind, node.image, node.container, state=state, user=node.user)
    return LabNode(
        name=node.name,
        kind=node.kind,
        image=container.image,
        container=container.name,
        ipv4=next((net.ipv4 for net in container.attached if net.ipv4), ""),
        ipv6=next((net.ipv6 for net in container.attached if net.ipv6), ""),
        state=container.state,
        started_at=container.started_at if container.running else "",
        interfaces=tuple(LabInterface(face.name, face.up, face.mac, face.addresses) for face in container.interfaces),
        user=node.user,
    )


def _fingerprint(containers: Mapping[str, Container]) -> str:
    return digest(
        [
            [name, item.id, item.state, item.health, item.started_at, sorted(face.name for face in item.interfaces)]
            for name, item in sorted(containers.items())
        ]
    )
