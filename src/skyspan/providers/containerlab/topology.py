"""A containerlab topology as values: its nodes with what they inherit, its links, what it says of its management
network; pure. Inheritance is node, group, kind, defaults (containerlab's manual, "Topology definition")."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from skyspan.model.value import digest
from skyspan.providers.containerlab.words import EXTERNAL, FORMER_WORDS, OUTSIDE, WITHOUT_CONTAINER
from skyspan.providers.lab.topology import LabLink

_WEB = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Named:
    """A path that a node names, relative to the topology's folder, and the setting that names it."""

    path: str
    setting: str


@dataclass(frozen=True, slots=True)
class Node:
    """A node with what it inherits. `container` is empty for kinds without one; `definition` is a digest of all that
    its settings come from, so that a change of it is a change of the node."""

    name: str
    kind: str
    image: str
    container: str
    exec: tuple[str, ...]
    files: tuple[Named, ...]
    network_mode: str
    definition: str
    user: str = ""
    fixed: tuple[str, ...] = ()
    """Its management addresses, where the topology gives them."""


@dataclass(frozen=True, slots=True)
class Topology:
    """A lab as it is wanted. `prefix` is what its containers' names begin with; `management` is the section `mgmt` with
    its texts."""

    name: str
    prefix: str
    nodes: tuple[Node, ...]
    links: tuple[LabLink, ...]
    wires: Mapping[str, str]
    """By the link's name, a digest of its settings."""
    management: Mapping[str, Any]

    def node(self, name: str) -> Node | None:
        """The node of that name."""
        return next((node for node in self.nodes if node.name == name), None)

    @property
    def images(self) -> tuple[str, ...]:
        """The images of its nodes, those without a container left out."""
        return tuple(sorted({node.image for node in self.nodes if node.container and node.image}))

    @property
    def bridges(self) -> tuple[str, ...]:
        """Linux bridges of the host that it is connected to."""
        return tuple(item.name for item in self.nodes if item.kind == "bridge" and item.network_mode in ("", "host"))

    @property
    def others(self) -> tuple[str, ...]:
        """Containers of others that it is connected to."""
        return tuple(item.name for item in self.nodes if item.kind == EXTERNAL)

    @property
    def sharing(self) -> str:
        """The first node that is in another container's network; containerlab reconciles no lab that has one
        (core/apply.go, checkUnsupportedApplyNodes). Empty when there is none."""
        return next((node.name for node in self.nodes if node.network_mode.startswith("container:")), "")


def link_name(link: LabLink) -> str:
    """A link in words: `r1:eth1 -- r2:eth1`."""
    return " -- ".join(f"{node}:{interface}" for node, interface in link.ends)


def topology_of(values: Mapping[str, Any]) -> Topology:
    """The topology with those values, which the checks have passed."""
    section = values.get("topology") or {}
    name = str(values.get("name") or "")
    prefix = _prefix(values.get("prefix", "clab"), name)
    nodes = tuple(_node(node, settings or {}, section, prefix) for node, settings in nodes_of(section))
    raw = section.get("links") or []
    links = tuple(link_of(item) for item in raw)
    wires = {link_name(link): digest(item) for link, item in zip(links, raw, strict=True)}
    return Topology(name, prefix, nodes, links, wires, management_of(values))


def spelled_out(text: str, node: str, folder: str) -> str:
    """A command of `node` with containerlab's words for its place in it (core/config.go, magicVarReplacer); `folder` is
    what containerlab makes beside the topology."""
    words = {
        "__clabDir__": folder,
        "__clabLabName__": folder.rpartition("/")[2],
        "__clabNodeDir__": f"{folder}/{node}",
        "__clabNodeName__": node,
    }
    for word, meaning in words.items():
        text = text.replace(word, meaning)
    return text


def management_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """The section `mgmt`, its former words in today's (types/types.go, MgmtNet)."""
    found = dict(values.get("mgmt") or {})
    for former, word in FORMER_WORDS.items():
        given = found.pop(former, None)
        found[word] = found.get(word) or given
    return {word: value for word, value in found.items() if value is not None}


def nodes_of(section: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The nodes' own settings by name, in order."""
    return list((section.get("nodes") or {}).items())


def levels(settings: Mapping[str, Any], section: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """What a node's settings come from, the strongest first, each with its place in the topology."""
    defaults = section.get("defaults") or {}
    kind = _kind(settings, section)
    group = settings.get("group") or _named("kinds", kind, section).get("group") or defaults.get("group")
    named = (("groups", group), ("kinds", kind))
    return [("nodes", settings), *((part, _named(part, name, section)) for part, name in named), ("defaults", defaults)]


def kind_of(settings: Mapping[str, Any], section: Mapping[str, Any]) -> str:
    """The kind of a node with those settings, in small letters; empty when none is given."""
    return str(_kind(settings, section)).lower()


def _kind(settings: Mapping[str, Any], section: Mapping[str, Any]) -> Any:
    """The kind as it is written, which is how `kinds` has it (types/topology.go, GetNodeKind)."""
    defaults = section.get("defaults") or {}
    groups = (_named("groups", level.get("group"), section) for level in (settings, defaults))
    return next((level["kind"] for level in (settings, *groups, defaults) if level.get("kind")), "")


def _named(part: str, name: Any, section: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings of that name in `kinds` or `groups`; none for a name that is not there, which is only a label."""
    return (section.get(part) or {}).get(name) or {}


def inherited(key: str, settings: Mapping[str, Any], section: Mapping[str, Any]) -> Any:
    """What a node has for `key`: the strongest level that gives it."""
    return next((level[key] for _, level in levels(settings, section) if level.get(key) not in (None, "")), None)


def link_of(item: Mapping[str, Any]) -> LabLink:
    """A link as it is written, briefly (`endpoints: ["a:eth1", "b:eth1"]`) or at length."""
    kind = str(item.get("type") or "brief").lower()
    ends = [_end(end) for end in item.get("endpoints") or ()]
    if kind == "brief":
        return LabLink(tuple(ends), next((OUTSIDE[node] for node, _ in ends if node in OUTSIDE), "veth"))
    if item.get("endpoint"):
        ends.append(_end(item["endpoint"]))
    if kind in OUTSIDE:
        ends.append((kind, str(item.get("host-interface") or "")))
    if kind.startswith("vxlan"):
        ends.append(("vxlan", f"{item.get('remote')}/{item.get('vni')}"))
    return LabLink(tuple(ends), kind)


def _end(end: Any) -> tuple[str, str]:
    if isinstance(end, Mapping):
        return str(end.get("node") or ""), str(end.get("interface") or "")
    node, _, interface = str(end).partition(":")
    return node, interface


def _prefix(prefix: Any, lab: str) -> str:
    """What containers' names begin with (containerlab's manual, "Topology definition", prefix)."""
    if prefix in (None, ""):
        return ""
    return f"{lab}-" if prefix == "__lab-name" else f"{prefix}-{lab}-"


def _node(name: str, settings: Mapping[str, Any], section: Mapping[str, Any], prefix: str) -> Node:
    kind = kind_of(settings, section)
    sources = levels(settings, section)
    run = [str(line) for _, level in reversed(sources) for line in level.get("exec") or ()]
    credentials = inherited("credentials", settings, section)
    return Node(
        name=name,
        kind=kind,
        image=str(inherited("image", settings, section) or ""),
        container="" if kind in WITHOUT_CONTAINER else prefix + name,
        exec=tuple(dict.fromkeys(run)),
        files=tuple(dict.fromkeys(_files(name, sources))),
        network_mode=str(inherited("network-mode", settings, section) or ""),
        definition=digest([level for _, level in sources]),
        user=str(credentials.get("username") or "") if isinstance(credentials, Mapping) else "",
        fixed=tuple(str(settings[key]) for key in ("mgmt-ipv4", "mgmt-ipv6") if settings.get(key)),
    )


def _files(name: str, sources: list[tuple[str, Mapping[str, Any]]]) -> Iterator[Named]:
    """Every path of the user's machine that a node's settings name relatively."""
    for _, level in sources:
        for setting, text in _paths(level):
            path = text.replace("__clabNodeName__", name)
            # A variable that is still there is one of the host's, where containerlab puts it in.
            foreign = path.startswith(("/", "~", "$")) or _WEB.match(path) or "__clab" in path
            if path and "\n" not in path and not foreign:
                yield Named(path, setting)


def _paths(level: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for bind in level.get("binds") or ():
        source, colon, _ = str(bind).partition(":")
        if colon:
            yield "binds", source
    for setting in ("startup-config", "license"):
        if level.get(setting):
            yield setting, str(level[setting])
    for file in level.get("env-files") or ():
        yield "env-files", str(file)
    extras = level.get("extras")
    for key in ("srl-agents", "ceos-copy-to-flash"):
        for file in (extras.get(key) or ()) if isinstance(extras, Mapping) else ():
            yield f"extras.{key}", str(file)
    credentials = level.get("credentials")
    if isinstance(credentials, Mapping) and credentials.get("identity-file"):
        yield "credentials.identity-file", str(credentials["identity-file"])
