"""Graphs of anything: order, circles and reach."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyspan.planning.graph import (
    CycleError,
    ancestors,
    components,
    cycles,
    descendants,
    levels,
    reach,
    reversed_graph,
    topological_order,
)

GRAPHS = st.integers(1, 12).flatmap(
    lambda size: st.dictionaries(st.integers(0, size), st.frozensets(st.integers(0, size), max_size=4))
)
ACYCLIC = st.lists(st.frozensets(st.integers(0, 11), max_size=4), max_size=12).map(
    lambda needs: {place: frozenset(n for n in needed if n < place) for place, needed in enumerate(needs)}
)


def test_an_order_puts_every_node_after_what_it_needs() -> None:
    assert topological_order({"c": ["b", "a"], "b": ["a"], "a": []}) == ("a", "b", "c")


def test_what_is_in_order_already_stays_as_it_is() -> None:
    assert topological_order({"z": [], "a": [], "m": ["z"], "b": ["a"]}) == ("z", "a", "m", "b")


def test_the_order_does_not_depend_on_the_order_within_needs() -> None:
    assert topological_order({"x": ["c", "a", "b"], "a": [], "b": [], "c": []}) == ("a", "b", "c", "x")


def test_needs_outside_the_graph_are_ignored() -> None:
    assert topological_order({"a": ["elsewhere"]}) == ("a",)


def test_a_circle_is_named_from_its_first_node_on() -> None:
    with pytest.raises(CycleError, match="b -> d -> c -> b") as failed:
        topological_order({"a": [], "b": ["a", "d"], "c": ["b"], "d": ["c"]})
    assert failed.value.cycle == ("b", "d", "c")


def test_a_node_that_needs_itself_is_a_circle() -> None:
    assert cycles({"a": ["a"], "b": ["a"]}) == (("a",),)


def test_each_knot_gives_its_shortest_circle() -> None:
    knots = {"a": ["b", "c"], "b": ["d"], "c": ["a"], "d": ["a"], "x": ["y"], "y": ["x"], "free": ["a"]}
    assert sorted(cycles(knots)) == [("a", "c"), ("x", "y")]


def test_reach_goes_both_ways() -> None:
    graph = {"a": [], "b": ["a"], "c": ["b"], "d": []}
    assert reach(graph, ["c", "unknown"]) == {"a", "b", "c"}
    assert ancestors(graph, "c") == {"a", "b"}
    assert descendants(graph, "a") == {"b", "c"}
    assert reversed_graph(graph) == {"a": ("b",), "b": ("c",), "c": (), "d": ()}


def test_levels_hold_what_can_go_at_the_same_time() -> None:
    assert levels({"d": ["b", "c"], "a": [], "b": ["a"], "c": []}) == (("a", "c"), ("b",), ("d",))
    assert levels({}) == ()


def test_a_long_chain_needs_no_recursion() -> None:
    chain = {place: [place - 1] if place else [] for place in range(50_000, -1, -1)}
    assert topological_order(chain) == tuple(range(50_001))


class Counting(dict[int, list[int]]):
    """A graph that counts how often it is asked."""

    asked = 0

    def __getitem__(self, key: int) -> list[int]:
        self.asked += 1
        return super().__getitem__(key)

    def items(self) -> Iterator[tuple[int, list[int]]]:  # type: ignore[override]
        for key in self:
            yield key, self[key]


def test_the_work_grows_no_faster_than_the_graph() -> None:
    def work(size: int) -> int:
        graph = Counting({place: [place - step for step in (1, 2, 3) if place >= step] for place in range(size)})
        topological_order(graph)
        levels(graph)
        return graph.asked

    assert work(4000) <= 4.1 * work(1000)


@given(ACYCLIC)
def test_every_acyclic_graph_has_an_order(graph: Mapping[int, frozenset[int]]) -> None:
    order = topological_order(graph)
    place = {node: rank for rank, node in enumerate(order)}
    assert sorted(order) == sorted(graph)
    assert all(place[needed] < place[node] for node, needs in graph.items() for needed in needs)


@given(GRAPHS)
def test_a_circle_really_is_one_and_there_is_one_exactly_if_there_is_no_order(
    graph: Mapping[int, frozenset[int]],
) -> None:
    found = cycles(graph)
    for circle in found:
        assert all(graph[node] >= {needed} for node, needed in zip(circle, (*circle[1:], circle[0]), strict=True))
    if found:
        with pytest.raises(CycleError):
            topological_order(graph)
    else:
        assert len(topological_order(graph)) == len(graph)


@given(GRAPHS)
def test_components_share_out_the_nodes(graph: Mapping[int, frozenset[int]]) -> None:
    assert sorted(node for component in components(graph) for node in component) == sorted(graph)
