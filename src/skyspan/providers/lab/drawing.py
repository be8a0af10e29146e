"""Pictures of a lab's topology: Mermaid, DOT and SVG, the same text for the same lab; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from skyspan.providers.lab.topology import LabLink, LabNode

_RUNNING, _TROUBLED, _UNKNOWN = "#d5f0dc", "#f7d2cf", "#e4e8ee"
_BOX = (112, 40)
_LEAST_RADIUS = 150
_SPACE = 132
"""How far apart the middles of neighbours on the circle are, in pixels."""


def mermaid(name: str, nodes: Sequence[LabNode], links: Sequence[LabLink]) -> str:
    """A flowchart (Mermaid's manual, "Flowcharts"); identifiers are numbered, as names may hold what it reserves."""
    drawn = _drawn(nodes, links)
    number = {node.name: f"n{index}" for index, node in enumerate(drawn)}
    lines = ["---", f"title: {name}", "---", "flowchart LR"]
    lines += [f'  {number[node.name]}["{_quoted(_label(node, "<br/>"))}"]' for node in drawn]
    for first, second, text in _wires(links):
        lines.append(f'  {number[first]} ---|"{_quoted(text)}"| {number[second]}')
    troubled = ",".join(number[node.name] for node in drawn if _colour(node) == _TROUBLED)
    if troubled:
        lines += [f"  classDef troubled fill:{_TROUBLED}", f"  class {troubled} troubled"]
    return "\n".join(lines) + "\n"


def dot(name: str, nodes: Sequence[LabNode], links: Sequence[LabLink]) -> str:
    """An undirected graph in Graphviz' language."""
    lines = [f'graph "{_escaped(name)}" {{', "  node [shape=box, style=filled];"]
    for node in _drawn(nodes, links):
        label = _escaped(_label(node, "\n")).replace("\n", "\\n")
        lines.append(f'  "{_escaped(node.name)}" [label="{label}", fillcolor="{_colour(node)}"];')
    for link in links:
        for (first, tail), (second, head) in _pairs(link):
            ports = f'taillabel="{_escaped(tail)}", headlabel="{_escaped(head)}"'
            lines.append(f'  "{_escaped(first)}" -- "{_escaped(second)}" [{ports}];')
    return "\n".join([*lines, "}"]) + "\n"


def svg(name: str, nodes: Sequence[LabNode], links: Sequence[LabLink]) -> str:
    """The nodes on a circle in the order of the topology, the links between them with their interfaces' names."""
    drawn = _drawn(nodes, links)
    radius = max(_LEAST_RADIUS, _SPACE * len(drawn) / (2 * math.pi))
    size = 2 * (radius + max(_BOX))
    places = {}
    for index, node in enumerate(drawn):
        angle = 2 * math.pi * index / len(drawn) - math.pi / 2
        places[node.name] = (size / 2 + radius * math.cos(angle), size / 2 + radius * math.sin(angle))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size:.0f} {size:.0f}" font-family="sans-serif" '
        f'font-size="11" text-anchor="middle"><title>{escape(name)}</title>'
    ]
    bends: dict[frozenset[str], int] = {}
    for link in links:
        for one, other in _pairs(link):
            between = frozenset((one[0], other[0]))
            parts.append(_wire(one, other, places, bends.get(between, 0)))
            bends[between] = bends.get(between, 0) + 1
    parts += [_box(node, *places[node.name]) for node in drawn]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _wire(one: tuple[str, str], other: tuple[str, str], places: dict[str, tuple[float, float]], parallel: int) -> str:
    (x1, y1), (x2, y2) = places[one[0]], places[other[0]]
    # Links beside another one are bent, one to each side in turn, so that each is seen.
    bend = 28 * ((parallel + 1) // 2) * (1 if parallel % 2 else -1)
    length = math.hypot(x2 - x1, y2 - y1) or 1.0
    xm = (x1 + x2) / 2 - bend * (y2 - y1) / length
    ym = (y1 + y2) / 2 + bend * (x2 - x1) / length

    def along(part: float) -> tuple[float, float]:
        rest = 1 - part
        return (
            rest * rest * x1 + 2 * rest * part * xm + part * part * x2,
            rest * rest * y1 + 2 * rest * part * ym + part * part * y2,
        )

    texts = "".join(
        f'<text x="{x:.1f}" y="{y:.1f}" fill="#52606d">{escape(text)}</text>'
        for text, (x, y) in ((one[1], along(0.3)), (other[1], along(0.7)))
    )
    curve = f"M{x1:.1f} {y1:.1f} Q{xm:.1f} {ym:.1f} {x2:.1f} {y2:.1f}"
    return f'<path d="{curve}" fill="none" stroke="#7b8794"/>{texts}'


def _box(node: LabNode, x: float, y: float) -> str:
    width, height = _BOX
    return (
        f'<rect x="{x - width / 2:.1f}" y="{y - height / 2:.1f}" width="{width}" height="{height}" rx="6" '
        f'fill="{_colour(node)}" stroke="#52606d"/>'
        f'<text x="{x:.1f}" y="{y - 3:.1f}" font-weight="bold">{escape(node.name)}</text>'
        f'<text x="{x:.1f}" y="{y + 12:.1f}">{escape(node.kind)}</text>'
    )


def _drawn(nodes: Sequence[LabNode], links: Sequence[LabLink]) -> list[LabNode]:
    """The nodes, and what else links end at (`host`, `mgmt-net`) as boxes of their own."""
    known = {node.name for node in nodes}
    others = dict.fromkeys(name for link in links for name, _ in link.ends if name not in known)
    return [*nodes, *(LabNode(name, "") for name in others)]


def _pairs(link: LabLink) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """A link of more than two ends is drawn from its first end to each other one."""
    return [(link.ends[0], other) for other in link.ends[1:]]


def _wires(links: Sequence[LabLink]) -> list[tuple[str, str, str]]:
    return [(first, second, f"{tail} — {head}") for link in links for (first, tail), (second, head) in _pairs(link)]


def _label(node: LabNode, line_end: str) -> str:
    return line_end.join(text for text in (node.name, node.kind, node.ipv4 or node.ipv6) if text)


def _colour(node: LabNode) -> str:
    if node.state in ("", "external"):
        return _UNKNOWN
    return _RUNNING if node.state == "running" else _TROUBLED


def _quoted(text: str) -> str:
    return text.replace('"', "#quot;")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
