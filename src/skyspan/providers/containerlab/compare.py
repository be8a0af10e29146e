"""What differs: between the lab that was applied and the one that is wanted, and between it and what runs; pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from skyspan.model.change import Action, ResourceChange
from skyspan.providers.containerlab.memory import Settled
from skyspan.providers.containerlab.topology import Topology, link_name
from skyspan.providers.containerlab.words import EXTERNAL, PLAIN_INTERFACES
from skyspan.providers.lab.containers import Container
from skyspan.providers.lab.topology import LabLink


def creation(topology: Topology) -> tuple[ResourceChange, ...]:
    """Everything, to be made."""
    nodes = [ResourceChange(f"node {node.name}", Action.CREATE) for node in topology.nodes]
    return (*nodes, *(ResourceChange(f"link {link_name(link)}", Action.CREATE) for link in topology.links))


def differences(
    before: Topology, after: Topology, settled: Mapping[str, Settled], files: Mapping[str, str]
) -> Iterator[ResourceChange]:
    """What another topology, or other files of a node, change. `files` are digests by node."""
    old = {node.name: node for node in before.nodes}
    new = {node.name: node for node in after.nodes}
    for name in old.keys() - new.keys():
        yield ResourceChange(f"node {name}", Action.DESTROY)
    for name, node in new.items():
        if name not in old:
            yield ResourceChange(f"node {name}", Action.CREATE)
        elif old[name].definition != node.definition:
            yield ResourceChange(f"node {name}", Action.REPLACE, "its settings changed")
        elif name in settled and settled[name].files != files.get(name, ""):
            yield ResourceChange(f"node {name}", Action.REPLACE, "its files changed")
    for name in before.wires.keys() - after.wires.keys():
        yield ResourceChange(f"link {name}", Action.DESTROY)
    for name, settings in after.wires.items():
        if name not in before.wires:
            yield ResourceChange(f"link {name}", Action.CREATE)
        elif before.wires[name] != settings:
            yield ResourceChange(f"link {name}", Action.UPDATE, "its settings changed: made anew")


def changed_links(before: Topology, after: Topology) -> list[LabLink]:
    """Links between the same interfaces whose settings changed: they are taken away, so that they are made anew."""
    return [
        link
        for link in after.links
        if before.wires.get(link_name(link), after.wires[link_name(link)]) != after.wires[link_name(link)]
    ]


def drift(
    topology: Topology,
    settled: Mapping[str, Settled],
    containers: Mapping[str, Container],
    strangers: Sequence[str] = (),
    instructed: Collection[str] = (),
) -> tuple[ResourceChange, ...]:
    """How what runs is no longer what was applied, node by node and link by link. `containers` are by node;
    `strangers` are containers of the lab that no node has, `instructed` nodes that get commands besides `exec`."""
    found: list[ResourceChange] = []
    for node in topology.nodes:
        if node.container:
            told = bool(node.exec) or node.name in instructed
            found += _node_drift(node.name, settled.get(node.name), containers.get(node.name), told)
        elif node.kind == EXTERNAL and not (node.name in containers and containers[node.name].running):
            found.append(ResourceChange(f"node {node.name}", Action.UPDATE, "the container, of others, does not run"))
    for link in topology.links:
        lost = [f"{node}:{name}" for node, name in link.ends if _is_lost(node, name, topology, settled, containers)]
        if lost:
            found.append(ResourceChange(f"link {link_name(link)}", Action.CREATE, f"{_are(lost)} gone"))
            continue
        anew = [f"{node}:{name}" for node, name in link.ends if _is_another(node, name, settled, containers)]
        if anew:
            found.append(
                ResourceChange(f"link {link_name(link)}", Action.UPDATE, f"{_are(anew)} new, without addresses")
            )
    found += [ResourceChange(f"container {name}", Action.DESTROY, "no node has it") for name in strangers]
    return tuple(found)


def _are(ends: Sequence[str]) -> str:
    return f"{' and '.join(ends)} {'are' if len(ends) > 1 else 'is'}"


def _node_drift(
    name: str, settled: Settled | None, container: Container | None, runs_commands: bool
) -> Iterator[ResourceChange]:
    address = f"node {name}"
    if container is None:
        yield ResourceChange(address, Action.CREATE, "its container is gone")
    elif container.state == "created":
        yield ResourceChange(address, Action.UPDATE, "its container was never started")
    elif not container.running:
        exited = container.state == "exited"
        said = f"ended with status {container.exit_code}" if exited else f"is {container.state}"
        yield ResourceChange(address, Action.UPDATE, f"its container {said}")
    elif settled is not None and container.id != settled.id:
        yield ResourceChange(address, Action.UPDATE, "its container is another one")
    elif settled is not None and container.started_at != settled.started_at and runs_commands:
        yield ResourceChange(address, Action.UPDATE, "it was restarted, without its commands")


def _is_lost(
    node: str,
    interface: str,
    topology: Topology,
    settled: Mapping[str, Settled],
    containers: Mapping[str, Container],
) -> bool:
    """Whether the end of a link is not there. Where a kind gives interfaces names of its own, those count that were
    there when the node settled, so such a link is judged by its other end."""
    known = topology.node(node)
    container = containers.get(node)
    if known is None or not (known.container or known.kind == EXTERNAL):
        return False
    if known.kind not in PLAIN_INTERFACES and interface not in (settled[node].interfaces if node in settled else {}):
        return False
    return container is None or not container.running or container.interface(interface) is None


def _is_another(node: str, interface: str, settled: Mapping[str, Settled], containers: Mapping[str, Container]) -> bool:
    """Whether an interface of a node that was not restarted is not the one it settled with."""
    container, before = containers.get(node), settled.get(node)
    if container is None or before is None or (container.id, container.started_at) != (before.id, before.started_at):
        return False
    seen = container.interface(interface)
    return seen is not None and interface in before.interfaces and seen.index != before.interfaces[interface]
