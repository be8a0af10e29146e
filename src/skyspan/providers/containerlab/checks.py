"""What can be said against a topology without looking at any host: every finding at once, with its place; pure."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from ipaddress import ip_address, ip_network
from typing import Any

from skyspan.model.diagnostic import Diagnostic
from skyspan.model.error import SpecError
from skyspan.providers.containerlab import words
from skyspan.providers.containerlab.reading import Path, Read
from skyspan.providers.containerlab.topology import inherited, kind_of, link_of, management_of, nodes_of
from skyspan.providers.lab.management import INTERFACE_LENGTH

_LAB = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]*")
_NODE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._|-]*")


def check(topology: Read) -> None:
    """Raise SpecError with everything that keeps this topology from being deployed."""
    found = sorted(problems(topology), key=lambda item: item.where)
    if found:
        count = f"{len(found)} errors" if len(found) > 1 else "an error"
        raise SpecError(
            f"the topology {topology.file} has {count}: {found[0].summary}",
            detail="\n".join(item.render() for item in found),
            hint=next((item.hint for item in found if item.hint), ""),
        )


def problems(topology: Read) -> Iterator[Diagnostic]:
    """All findings, in no order."""

    def say(code: str, path: Path, summary: str, hint: str = "") -> Diagnostic:
        where = topology.where(path)
        return Diagnostic(code, summary, where, hint=hint, excerpt=topology.excerpt(where))

    values = topology.values
    for path in topology.doubled:
        yield say("duplicate-key", path, f"{path[-1]!r} is there twice")
    for code, path, summary, hint in (*_shape(values), *_content(values)):
        yield say(code, path, summary, hint)


_Found = tuple[str, Path, str, str]


def _shape(values: Mapping[str, Any]) -> Iterator[_Found]:
    """Keys that do not exist where they are, and things of the wrong kind."""
    yield from _keys(values, words.ROOT_KEYS, ())
    yield from _keys(values.get("mgmt"), words.MANAGEMENT_KEYS, ("mgmt",))
    section = values.get("topology")
    if not isinstance(section, Mapping):
        yield "no-topology", ("topology",) if "topology" in values else (), "there is no `topology` with nodes", ""
        return
    yield from _keys(section, words.TOPOLOGY_KEYS, ("topology",))
    yield from _keys(section.get("defaults"), words.NODE_KEYS, ("topology", "defaults"))
    for part in ("nodes", "kinds", "groups"):
        entries = section.get(part)
        if entries is not None and not isinstance(entries, Mapping):
            yield "wrong-type", ("topology", part), f"`{part}` is a mapping by name", ""
            continue
        for name, settings in (entries or {}).items():
            yield from _keys(settings, words.NODE_KEYS, ("topology", part, name))
    for index, link in enumerate(section.get("links") or ()):
        yield from _link_shape(link, ("topology", "links", index))


def _keys(entries: Any, known: Collection[str], path: Path) -> Iterator[_Found]:
    if entries is None:
        return
    if not isinstance(entries, Mapping):
        yield "wrong-type", path, f"`{path[-1]}` is a mapping", ""
        return
    for key in entries:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
            yield "unknown-key", (*path, key), f"unknown key {key!r}", hint


def _link_shape(link: Any, path: Path) -> Iterator[_Found]:
    if not isinstance(link, Mapping):
        yield "wrong-type", path, 'a link is a mapping: `endpoints: ["a:eth1", "b:eth1"]`', ""
        return
    yield from _keys(link, words.LINK_KEYS, path)
    kind = str(link.get("type") or "brief").lower()
    if kind not in words.LINK_TYPES:
        near = difflib.get_close_matches(kind, words.LINK_TYPES, n=1)
        yield "unknown-type", (*path, "type"), f"no link type {kind!r}", f"did you mean {near[0]!r}?" if near else ""
        return
    ends = link.get("endpoints") if kind in ("brief", "veth", "veth-stitch") else [link.get("endpoint")]
    if not isinstance(ends, list) or (len(ends) != 2 if kind in ("brief", "veth", "veth-stitch") else ends == [None]):
        wanted = "exactly two `endpoints`" if kind in ("brief", "veth", "veth-stitch") else "one `endpoint`"
        yield "bad-endpoints", path, f"a link of type {kind} has {wanted}", ""
        return
    for end in ends:
        if isinstance(end, Mapping):
            yield from _keys(end, words.ENDPOINT_KEYS, path)
        elif not isinstance(end, str) or ":" not in end or kind != "brief":
            written = "`NODE:INTERFACE`" if kind == "brief" else "a mapping with `node` and `interface`"
            yield "bad-endpoint", path, f"the endpoint {end!r} is not {written}", ""


def _content(values: Mapping[str, Any]) -> Iterator[_Found]:
    name = values.get("name")
    if not name or not isinstance(name, str):
        yield "no-name", (), "the lab has no `name`", ""
    elif not _LAB.fullmatch(name):
        rule = "letters, digits, `.`, `_` and `-`, and a letter or digit first"
        yield "bad-name", ("name",), f"{name!r} cannot be a lab's name", rule
    section = values.get("topology")
    if not isinstance(section, Mapping) or any(True for _ in _shape(values)):
        return
    nodes = dict(nodes_of(section))
    if not nodes:
        yield "no-nodes", ("topology",), "the topology has no nodes", ""
    for node, settings in nodes.items():
        yield from _node(node, settings or {}, section)
    yield from _links(section, nodes)
    yield from _addresses(management_of(values), nodes)


def _node(name: str, settings: Mapping[str, Any], section: Mapping[str, Any]) -> Iterator[_Found]:
    path: Path = ("topology", "nodes", name)
    if not _NODE.fullmatch(name):
        yield "bad-name", path, f"{name!r} cannot be a node's name", ""
    kind = kind_of(settings, section)
    if not kind:
        yield "no-kind", path, f"node {name} has no kind", "give `kind: linux`, or a kind in `topology.defaults`"
    elif kind not in words.KINDS:
        near = difflib.get_close_matches(kind, words.KINDS, n=1)
        yield (
            "unknown-kind",
            (*path, "kind"),
            f"node {name} is of unknown kind {kind!r}",
            (f"did you mean {near[0]!r}?" if near else ""),
        )
    elif kind == "linux" and not inherited("image", settings, section):
        yield "no-image", path, f"node {name} has no image", ""
    runtime = inherited("runtime", settings, section) or "docker"
    if runtime != "docker":
        yield (
            "runtime",
            path,
            f"node {name} asks for the runtime {runtime}",
            "labs run with Docker: leave `runtime` out",
        )


def _links(section: Mapping[str, Any], nodes: Mapping[str, Any]) -> Iterator[_Found]:
    links = [link_of(item) for item in section.get("links") or ()]
    counted = Counter(end for link in links for end in dict.fromkeys(link.ends) if end[0] in nodes)
    for index, link in enumerate(links):
        path: Path = ("topology", "links", index)
        if len(set(link.ends)) < len(link.ends):
            yield "loop", path, f"{':'.join(link.ends[0])} is linked to itself", ""
        for node, interface in link.ends:
            outside = node in words.OUTSIDE or node == "vxlan"
            if node not in nodes and not outside:
                near = difflib.get_close_matches(node, nodes, n=1)
                summary = f"the endpoint {node}:{interface} dangles: there is no node {node!r}"
                yield "dangling-endpoint", path, summary, f"did you mean {near[0]!r}?" if near else ""
                continue
            if counted[node, interface] > 1:
                yield (
                    "duplicate-endpoint",
                    path,
                    f"{node}:{interface} is an end of {counted[node, interface]} links",
                    "",
                )
            settings = nodes.get(node) or {}
            plain = node in nodes and kind_of(settings, section) in words.PLAIN_INTERFACES
            # On the host's side containerlab finds a short name by itself; a node's own commands would miss theirs.
            if plain and len(interface) > INTERFACE_LENGTH:
                summary = f"the interface {interface} of {node} has {len(interface)} characters"
                yield "long-interface", path, summary, f"Linux takes no more than {INTERFACE_LENGTH}"
            managed = node in nodes and inherited("network-mode", settings, section) != "none"
            if interface == "eth0" and managed and kind_of(settings, section) == "linux":
                yield "eth0", path, f"eth0 of {node} is its management interface", "begin with eth1"


def _addresses(management: Mapping[str, Any], nodes: Mapping[str, Any]) -> Iterator[_Found]:
    """Subnets that are none, addresses of nodes outside of them, and addresses given twice."""
    subnets = {}
    for version in (4, 6):
        text = management.get(f"ipv{version}-subnet")
        if text and text != "auto":
            try:
                subnets[version] = ip_network(text, strict=False)
            except ValueError as error:
                yield "bad-subnet", ("mgmt", f"ipv{version}-subnet"), str(error), ""
    seen: dict[str, str] = {}
    for node, settings in nodes.items():
        for version in (4, 6):
            key = f"mgmt-ipv{version}"
            text = (settings or {}).get(key)
            if not text:
                continue
            path: Path = ("topology", "nodes", node, key)
            try:
                address = ip_address(text)
            except ValueError as error:
                yield "bad-address", path, str(error), ""
                continue
            if version in subnets and address not in subnets[version]:
                yield "foreign-address", path, f"{text} of {node} is not in {subnets[version]}", ""
            if text in seen:
                yield "duplicate-address", path, f"{text} is given to {seen[text]} and to {node}", ""
            seen[text] = node
