"""Which containers are started or removed so that containerlab can reconcile the rest, and which commands have to be
run again in which node afterwards; pure.

Measured with containerlab 0.79: `deploy` makes what is missing and links that lost an end, leaves every other node
running, starts nodes whose interfaces it parked, and runs `exec` only in nodes that it made or started itself. It
refuses to go on beside a container that ended by itself, and does not know that a peer's new interface is bare.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from skyspan.providers.containerlab.memory import Settled
from skyspan.providers.containerlab.topology import Topology
from skyspan.providers.containerlab.words import EXTERNAL
from skyspan.providers.lab.containers import Container

_ROUTE = re.compile(r"(?<![\w/-])ip\s+(?:-\w+\s+)*r(?:oute)?\s+(?:add|append|change|replace)\b")


@dataclass(frozen=True, slots=True)
class Mending:
    """Containers to remove and to start, by name, before containerlab reconciles."""

    removed: tuple[str, ...]
    started: tuple[str, ...]


def mending(
    containers: Mapping[str, Container],
    settled: Mapping[str, Settled],
    files: Mapping[str, str],
    parked: Collection[str],
    *,
    unsure: bool = False,
) -> Mending:
    """What to do before. `files` are the wanted digests by node; `parked` are containers whose interfaces are kept on
    the host, which containerlab starts itself. `unsure` says that what was sent changed since an apply that did not
    come to its end: nodes that it did not see settle may be of either."""
    removed, started = [], []
    for node, container in containers.items():
        known = settled.get(node)
        stale = unsure if known is None or known.id != container.id else known.files != files.get(node, "")
        if stale or container.state in ("created", "dead", "removing"):
            removed.append(container.name)
        elif container.state == "exited" and container.name not in parked:
            started.append(container.name)
    return Mending(tuple(removed), tuple(started))


@dataclass(frozen=True, slots=True)
class Sight:
    """The containers by node before and after containerlab, and those of which it started the parked ones itself."""

    before: Mapping[str, Container]
    after: Mapping[str, Container]
    parked: Collection[str] = ()


def due(
    topology: Topology, extra: Mapping[str, tuple[str, ...]], settled: Mapping[str, Settled], seen: Sight
) -> Iterator[tuple[str, str]]:
    """By node, the commands that have to be run now.

    A node that containerlab made or started just now has had the topology's own; one that was restarted otherwise, or
    of which an earlier attempt saw no end, gets all; one of which only an interface was made anew gets those that name
    that interface, and routes that name none: they went with it, if they led over it, and are there already otherwise.
    """
    for node in topology.nodes:
        container = seen.after.get(node.name)
        if container is None or not container.running:
            continue
        own, more = node.exec, extra.get(node.name, ())
        known, before = settled.get(node.name), seen.before.get(node.name)
        if known is not None and (known.id, known.started_at) == (container.id, container.started_at):
            anew = _anew(known, container)
            commands: tuple[str, ...] = tuple(line for line in (*own, *more) if _names(line, anew))
        elif before is None or before.id != container.id or before.name in seen.parked:
            commands = more
        elif known is None and node.kind == EXTERNAL:
            commands = more  # containerlab has run the others when it made the lab
        else:
            commands = (*own, *more)
        for line in commands:
            yield node.name, line


def settled_of(containers: Mapping[str, Container], files: Mapping[str, str]) -> dict[str, Settled]:
    """How the nodes are now, to be kept."""
    return {
        node: Settled(
            item.id, item.started_at, {face.name: face.index for face in item.interfaces}, files.get(node, "")
        )
        for node, item in containers.items()
        if item.running
    }


def _anew(known: Settled, container: Container) -> list[str]:
    return [face.name for face in container.interfaces if known.interfaces.get(face.name) != face.index]


def _names(line: str, interfaces: list[str]) -> bool:
    if interfaces and _ROUTE.search(line) and " dev " not in line:
        return True
    return any(re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", line) for name in interfaces)
