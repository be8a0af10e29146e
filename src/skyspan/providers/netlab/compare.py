"""What differs between a lab and what is wanted, and which way leads there: pure.

Netlab has no incremental apply: its scripts add to a device's configuration and take nothing away. So only what
containerlab is told of a node (its image, its environment) is changed in a running lab; all else makes it anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from skyspan.model.change import Action, ResourceChange
from skyspan.providers.lab.containers import LAB_LABEL, NODE_LABEL, Container, HostLook, lost_interfaces
from skyspan.providers.lab.topology import LabLink
from skyspan.providers.netlab import clabfile
from skyspan.providers.netlab.facts import Facts
from skyspan.providers.netlab.memory import Made, Memory
from skyspan.providers.netlab.parse import Survey

_CONTAINER_ONLY = frozenset(("box", "clab", "_node_config", "netlab_ansible_skip_module"))
"""What of a node's data is containerlab's matter."""

_KEEPS_ADDRESSES = frozenset(("frr",))
"""Devices that give an interface its addresses and protocols back when it comes again (zebra and its daemons do): they
need what netlab set on the link itself, and their other links are left alone."""

_MTU = 1500


class Way(StrEnum):
    """How a running lab becomes what is wanted."""

    FILES = "files"
    DEPLOY = "deploy"
    REPLACE = "replace"


@dataclass(frozen=True, slots=True)
class Difference:
    """What changes, and how. `nodes` are those that `Way.DEPLOY` makes anew."""

    way: Way
    changes: tuple[ResourceChange, ...] = ()
    nodes: tuple[str, ...] = ()
    reason: str = ""


def creation(facts: Facts) -> tuple[ResourceChange, ...]:
    """The nodes and links of a lab that is not there yet."""
    nodes = [
        ResourceChange(f"node {name}", Action.CREATE, f"{node['device']} {node.get('box', '')}".strip())
        for name, node in facts.nodes.items()
    ]
    links = [ResourceChange(_words(link), Action.CREATE, link.kind) for link in facts.wires()]
    return (*nodes, *links)


def difference(old: Made, new: Made) -> Difference:
    """From a running lab to another one."""
    changes = [*_nodes(old, new), *_links(old.facts, new.facts)]
    if changes:
        return Difference(
            Way.REPLACE, tuple(changes), reason="netlab cannot change a running lab: it is made anew as a whole"
        )
    before, after = (_pieces(made) for made in (old, new))
    if before.get("") != after.get(""):
        return Difference(
            Way.REPLACE,
            (ResourceChange("containerlab's links and defaults", Action.REPLACE),),
            reason="what all nodes are started with changed: the lab is made anew as a whole",
        )
    nodes = tuple(name for name in after if name and before.get(name) != after[name])
    if nodes:
        images = clabfile.images(new.clab)
        found = tuple(ResourceChange(f"node {name}", Action.REPLACE, images.get(name, "")) for name in nodes)
        return Difference(Way.DEPLOY, found, nodes, reason="only what containerlab is told of some nodes changed")
    if old.facts.data.get("validate") != new.facts.data.get("validate"):
        return Difference(Way.FILES, (ResourceChange("validation tests", Action.UPDATE),), reason="its tests changed")
    return Difference(Way.FILES, reason="its files changed, and nothing that netlab makes of them")


def _pieces(made: Made) -> Mapping[str, str]:
    return clabfile.pieces(made.clab) if made.clab else {}


def _nodes(old: Made, new: Made) -> Iterator[ResourceChange]:
    before, after = old.facts.nodes, new.facts.nodes
    for name in dict.fromkeys((*before, *after)):
        if name not in after:
            yield ResourceChange(f"node {name}", Action.DESTROY)
        elif name not in before:
            yield ResourceChange(f"node {name}", Action.CREATE, str(after[name]["device"]))
        elif before[name]["device"] != after[name]["device"]:
            note = f"{before[name]['device']} → {after[name]['device']}"
            yield ResourceChange(f"node {name}", Action.REPLACE, note)
        elif parts := _parts(before[name], after[name]):
            yield ResourceChange(f"node {name}", Action.UPDATE, ", ".join(parts))
        elif old.configs.get(name) != new.configs.get(name):
            yield ResourceChange(f"node {name}", Action.UPDATE, "its configuration")


def _parts(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Which parts of a node's data differ."""
    names = dict.fromkeys(name for name in (*before, *after) if name not in _CONTAINER_ONLY)
    return [name for name in names if before.get(name) != after.get(name)]


def _links(old: Facts, new: Facts) -> Iterator[ResourceChange]:
    before, after = ([_words(link) for link in facts.wires()] for facts in (old, new))
    yield from (ResourceChange(words, Action.DESTROY) for words in before if words not in after)
    yield from (ResourceChange(words, Action.CREATE) for words in after if words not in before)


def _words(link: LabLink) -> str:
    return "link " + " -- ".join(f"{node}:{interface}" for node, interface in link.ends)


@dataclass(frozen=True, slots=True)
class Damage:
    """What a running lab has lost. `remade` are nodes whose containers are made anew, `configured` those that are
    configured again; `whole` says that the lab cannot be mended by parts."""

    drift: tuple[ResourceChange, ...] = ()
    remade: tuple[str, ...] = ()
    configured: tuple[str, ...] = ()
    whole: bool = False

    @property
    def any(self) -> bool:
        """Whether there is something to repair."""
        return bool(self.drift)


def by_node(look: HostLook, name: str) -> dict[str, Container]:
    """The containers of the lab of that name, by node."""
    return {
        item.labels[NODE_LABEL]: item
        for item in look.containers
        if item.labels.get(LAB_LABEL) == name and NODE_LABEL in item.labels
    }


def damage(memory: Memory, survey: Survey, look: HostLook) -> Damage:
    """What differs from what was applied. A container that was started again has neither its links nor what its
    scripts set, even where it looks well."""
    made = memory.made
    if made is None or not made.clab:
        return Damage()
    containers = by_node(look, memory.place.name)
    drift: list[ResourceChange] = []
    dead: list[str] = []
    for node in made.facts.containers():
        container, known = containers.get(node), memory.started.get(node)
        state = "absent" if container is None else container.state
        if container is None or not container.running:
            drift.append(ResourceChange(f"node {node}", Action.REPLACE, f"its container is {state}"))
            dead.append(node)
        elif known is not None and container.started_at != known:
            drift.append(ResourceChange(f"node {node}", Action.REPLACE, "its container was started again"))
            dead.append(node)
    gone = _gone_ends(made, survey, dead)
    lost = {
        node: names
        for node, names in lost_interfaces(made.facts.wires(), containers).items()
        if node not in dead and any(not _explained(made.facts, node, name, dead) for name in names)
    }
    for node, names in lost.items():
        drift.append(ResourceChange(f"node {node}", Action.UPDATE, f"it lost {', '.join(names)}"))
    for interface, node in gone.items():
        if node not in lost:
            drift.append(ResourceChange(f"node {node}", Action.UPDATE, f"the host lost {interface}"))
    bridges = [name for name in made.facts.bridges() if name not in survey.links]
    drift += [ResourceChange(f"bridge {name}", Action.CREATE, "it is gone from the host") for name in bridges]
    hurt = dict.fromkeys((*dead, *lost, *gone.values()))
    again = dict.fromkeys((*hurt, *(peer for node in hurt for peer in forgetful(made.facts, node))))
    return Damage(
        tuple(drift),
        remade=tuple(dead),
        configured=tuple(again),
        whole=bool(bridges) or len(dead) == len(made.facts.containers()),
    )


def _gone_ends(made: Made, survey: Survey, dead: Sequence[str]) -> dict[str, str]:
    """By interface of the host that is not there, the node whose link it is; those of dead nodes are gone with them."""
    ends = clabfile.host_ends(made.clab)
    return {name: node for name, node in ends.items() if name not in survey.links and node not in dead}


def _explained(facts: Facts, node: str, interface: str, dead: Sequence[str]) -> bool:
    """Whether the other end of a wire is dead: both ends of a veth go together."""
    for link in facts.wires():
        if (node, interface) in link.ends:
            return any(other in dead for other, _ in link.ends if other != node)
    return False


def forgetful(facts: Facts, node: str) -> list[str]:
    """Nodes that a wire joins to `node`, which forget their address when it comes again."""
    return [peer for peer in facts.peers(node) if facts.nodes[peer]["device"] not in _KEEPS_ADDRESSES]


def refitted(facts: Facts, configured: Sequence[str]) -> list[tuple[str, str, int, bool]]:
    """The other ends of wires of `configured` in nodes that are not configured again: node, interface, MTU, and whether
    it speaks IPv6. A new wire has containerlab's MTU, with which OSPF does not become neighbours."""
    found = []
    for link in facts.wires():
        ends = link.ends if len(link.ends) == 2 else ()
        for (node, interface), (other, _) in zip(ends, reversed(ends), strict=True):
            if other in configured and node not in configured and node in facts.containers():
                item = facts.interface(node, interface)
                found.append((node, interface, int(item.get("mtu") or _MTU), bool(item.get("ipv6"))))
    return found
