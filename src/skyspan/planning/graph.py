"""A directed graph of anything: order, cycles and reach. Knows nothing of stages.

A graph is a mapping from each node to the nodes it needs. Every operation is linear in nodes and edges and keeps the
mapping's own order wherever it has a choice. Nodes that are needed but not in the mapping are ignored.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias, TypeVar

N = TypeVar("N", bound=Hashable)
Graph: TypeAlias = Mapping[N, Collection[N]]


class CycleError(ValueError):
    """The graph has no order; `cycle` names one way round, each node needing the next and the last the first."""

    def __init__(self, cycle: Sequence[object]) -> None:
        super().__init__(" -> ".join(str(node) for node in (*cycle, *cycle[:1])))
        self.cycle = tuple(cycle)


def topological_order(graph: Graph[N]) -> tuple[N, ...]:
    """Every node after those it needs; a mapping that is ordered already comes back as it is. Raises CycleError."""
    order: list[N] = []
    for component in components(_ordered(graph)):
        if len(component) > 1 or component[0] in graph[component[0]]:
            way = _round(graph, component)
            raise CycleError(way)
        order.append(component[0])
    return tuple(order)


def cycles(graph: Graph[N]) -> tuple[tuple[N, ...], ...]:
    """One cycle out of each knot of the graph: each node needs the next and the last the first."""
    return tuple(
        _round(graph, component)
        for component in components(_ordered(graph))
        if len(component) > 1 or component[0] in graph[component[0]]
    )


def _ordered(graph: Graph[N]) -> dict[N, list[N]]:
    """The same graph with what each node needs in the graph's own order, so that sets give no chance order."""
    rank = {node: place for place, node in enumerate(graph)}
    return {
        node: sorted((needed for needed in needs if needed in rank), key=rank.__getitem__)
        for node, needs in graph.items()
    }


def components(graph: Graph[N]) -> Iterator[tuple[N, ...]]:
    """The strongly connected components, each after those it needs (Tarjan's algorithm, without recursion)."""
    index: dict[N, int] = {}
    low: dict[N, int] = {}
    trail: list[N] = []
    on_trail: set[N] = set()
    for root in graph:
        if root in index:
            continue
        work: list[tuple[N, Iterator[N]]] = [_enter(root, graph, index, low, trail, on_trail)]
        while work:
            node, pending = work[-1]
            step = next((needed for needed in pending if needed in graph), None)
            if step is None:
                work.pop()
                if work:
                    parent = work[-1][0]
                    low[parent] = min(low[parent], low[node])
                if low[node] == index[node]:
                    yield _leave(node, trail, on_trail)
            elif step not in index:
                work.append(_enter(step, graph, index, low, trail, on_trail))
            elif step in on_trail:
                low[node] = min(low[node], index[step])


def _enter(
    node: N, graph: Graph[N], index: dict[N, int], low: dict[N, int], trail: list[N], on_trail: set[N]
) -> tuple[N, Iterator[N]]:
    index[node] = low[node] = len(index)
    trail.append(node)
    on_trail.add(node)
    return node, iter(graph[node])


def _leave(node: N, trail: list[N], on_trail: set[N]) -> tuple[N, ...]:
    start = len(trail) - 1
    while trail[start] != node:
        start -= 1
    component = tuple(trail[start:])
    del trail[start:]
    on_trail.difference_update(component)
    return component


def _round(graph: Graph[N], component: tuple[N, ...]) -> tuple[N, ...]:
    """The shortest way from the component's first node (in the graph's order) back to itself."""
    members = set(component)
    start = next(node for node in graph if node in members)
    came_from: dict[N, N] = {}
    front = [start]
    while front:
        following: list[N] = []
        for node in front:
            for needed in graph[node]:
                if needed == start:
                    way = [node]
                    while way[-1] != start:
                        way.append(came_from[way[-1]])
                    return tuple(reversed(way))
                if needed in members and needed not in came_from:
                    came_from[needed] = node
                    following.append(needed)
        front = following
    return component


def reach(graph: Graph[N], start: Iterable[N]) -> frozenset[N]:
    """`start` and everything it needs, directly or not."""
    found = {node for node in start if node in graph}
    front = list(found)
    while front:
        fresh = {needed for needed in graph[front.pop()] if needed in graph and needed not in found}
        found |= fresh
        front.extend(fresh)
    return frozenset(found)


def ancestors(graph: Graph[N], node: N) -> frozenset[N]:
    """Everything that `node` needs, directly or not, without itself."""
    return reach(graph, [node]) - {node}


def descendants(graph: Graph[N], node: N) -> frozenset[N]:
    """Everything that needs `node`, directly or not, without itself."""
    return reach(reversed_graph(graph), [node]) - {node}


def reversed_graph(graph: Graph[N]) -> dict[N, tuple[N, ...]]:
    """The graph with every edge turned round, its nodes in the same order."""
    turned: dict[N, list[N]] = {node: [] for node in graph}
    for node, needs in graph.items():
        for needed in needs:
            if needed in turned:
                turned[needed].append(node)
    return {node: tuple(needs) for node, needs in turned.items()}


def levels(graph: Graph[N]) -> tuple[tuple[N, ...], ...]:
    """The nodes by the length of the longest chain below them: what can go at the same time. Raises CycleError."""
    depth: dict[N, int] = {}
    for node in topological_order(graph):
        depth[node] = 1 + max((depth[needed] for needed in graph[node] if needed in depth), default=-1)
    found: list[list[N]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for node in graph:
        found[depth[node]].append(node)
    return tuple(tuple(level) for level in found)
