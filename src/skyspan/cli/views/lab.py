"""A network lab as text: its nodes, and what each interface is connected to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click


def is_lab(outputs: Mapping[str, Any]) -> bool:
    """Whether these are the outputs of a stage that runs a lab."""
    nodes, links = outputs.get("nodes"), outputs.get("links")
    return isinstance(nodes, Mapping) and isinstance(links, list) and "consoles" in outputs


def lab_lines(outputs: Mapping[str, Any]) -> Iterator[str]:
    """A line for each node and each link of it; a link stands with the first of its nodes."""
    nodes: Mapping[str, Any] = outputs["nodes"]
    wide = max((len(name) for name in nodes), default=0)
    for name, node in nodes.items():
        facts = "  ".join(str(fact) for fact in (node.get("ipv4"), node.get("image")) if fact)
        own = [link["ends"] for link in outputs["links"] if link["ends"] and link["ends"][0]["node"] == name]
        yield f"{click.style(name.ljust(wide), bold=True)}  {facts}".rstrip()
        for number, ends in enumerate(own, start=1):
            branch = "└" if number == len(own) else "├"
            others = ", ".join(f"{end['node']}:{end['interface']}" for end in ends[1:])
            yield f"{' ' * wide}  {branch}─ {ends[0]['interface']} ── {others}".rstrip(" ─")
