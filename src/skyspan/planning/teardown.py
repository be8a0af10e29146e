"""The way back: from what was recorded at apply, every stage after those that were built upon it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from skyspan.contracts.store import StageRecord
from skyspan.planning.graph import CycleError, reversed_graph, topological_order


def teardown_needs(records: Iterable[StageRecord]) -> dict[str, tuple[str, ...]]:
    """For each recorded stage those that must be gone first, in an order of teardown.

    Records of different runs may go round in a circle (a dependency that was turned round in the file between two
    applies): then the order in which they were recorded decides.
    """
    ordered = sorted(records, key=lambda record: (record.order, record.address.name), reverse=True)
    needs = {record.address.name: tuple(record.needs) for record in ordered}
    before = reversed_graph(needs)
    try:
        return {name: before[name] for name in topological_order(before)}
    except CycleError:
        place = {name: rank for rank, name in enumerate(needs)}
        return {name: tuple(other for other in before[name] if place[other] < place[name]) for name in needs}


def removed_stages(records: Iterable[StageRecord], stages: Collection[str]) -> tuple[StageRecord, ...]:
    """Recorded stages that the file no longer has: planned for destruction, in an order of teardown."""
    gone = {record.address.name: record for record in records if record.address.name not in stages}
    return tuple(gone[name] for name in teardown_needs(gone.values()))


def combined_needs(needs: Mapping[str, Iterable[str]], records: Iterable[StageRecord]) -> dict[str, tuple[str, ...]]:
    """What each stage of a run waits for when stages that left the file are destroyed in the same run.

    A removed stage goes after everything that was built upon it: other removed stages must be gone, and stages still
    in the file must have converged without it. Nothing waits for a removed stage: that one cannot be destroyed must
    not keep the rest from being brought up. Removed stages come first.
    """
    by_name = {record.address.name: record for record in records}
    gone = removed_stages(by_name.values(), frozenset(needs))
    combined: dict[str, tuple[str, ...]] = {record.address.name: () for record in gone}
    combined |= {name: tuple(needed) for name, needed in needs.items()}
    for record in by_name.values():
        for needed in record.needs:
            if needed in by_name and needed not in needs:
                combined[needed] = (*combined[needed], record.address.name)
    return combined
