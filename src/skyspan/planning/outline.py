"""The outline of a run: which stages, in which order, under which policies; all that the engine is told of them."""

from __future__ import annotations

from collections.abc import Iterable

from skyspan.contracts.store import StageRecord
from skyspan.model.composition import StageDeclaration
from skyspan.model.event import StageOutline
from skyspan.model.lifecycle import Verb
from skyspan.planning.draft import Checked
from skyspan.planning.graph import reversed_graph, topological_order
from skyspan.planning.select import select
from skyspan.planning.teardown import combined_needs, teardown_needs


def outline(
    verb: Verb, checked: Checked | None, records: Iterable[StageRecord] = (), only: Iterable[str] = ()
) -> tuple[StageOutline, ...]:
    """The stages of a run of `verb`, each after those in its `needs`.

    Forward verbs follow the composition; up and plan also destroy recorded stages that left the file (unless `only`
    limits the run). Stop and destroy follow the records alone: a stage there needs those that were built upon it.
    Without a composition (`checked` is None) start and check follow the records too. Raises UsageError when `only`
    names no stage.
    """
    recorded = tuple(records)
    if verb.reverse:
        return _from_records(recorded, tuple(only))
    if checked is None:
        if verb in (Verb.UP, Verb.PLAN):
            msg = f"a run of {verb} needs a composition"
            raise ValueError(msg)
        return _from_records(recorded, tuple(only), turned=True)
    return _forward(verb, checked, recorded, tuple(only))


def _forward(
    verb: Verb, checked: Checked, records: tuple[StageRecord, ...], only: tuple[str, ...]
) -> tuple[StageOutline, ...]:
    chosen = select(checked.needs, only)
    rank = {name: place for place, name in enumerate(checked.order)}
    needs = {name: tuple(sorted(checked.needs[name], key=rank.__getitem__)) for name in checked.order if name in chosen}
    if verb in (Verb.UP, Verb.PLAN) and not only:
        needs = combined_needs(needs, records)
    by_name = {record.address.name: record for record in records}
    stages = checked.composition.stages
    return tuple(
        _declared(name, stages[name], needs[name]) if name in stages else _removed(by_name[name], needs[name])
        for name in topological_order(needs)
    )


def _from_records(
    records: tuple[StageRecord, ...], only: tuple[str, ...], *, turned: bool = False
) -> tuple[StageOutline, ...]:
    """The recorded stages in an order of teardown; `turned` round, in one of building up."""
    by_name = {record.address.name: record for record in records}
    needs = teardown_needs(records)
    if turned:
        forward = reversed_graph(needs)
        needs = {name: forward[name] for name in topological_order(forward)}
    chosen = select({name: frozenset(needed) for name, needed in needs.items()}, only)
    return tuple(
        _recorded(by_name[name], tuple(needed for needed in before if needed in chosen))
        for name, before in needs.items()
        if name in chosen
    )


def _declared(name: str, stage: StageDeclaration, needs: tuple[str, ...]) -> StageOutline:
    return StageOutline(
        name=name,
        uses=stage.uses,
        needs=needs,
        best_effort=stage.best_effort,
        attempts=stage.retry.attempts,
        backoff_s=stage.retry.backoff,
        retry_any=stage.retry.on == "any",
        timeout_s=stage.timeout,
    )


def _removed(record: StageRecord, needs: tuple[str, ...]) -> StageOutline:
    name = record.address.name
    return StageOutline(name, record.uses, needs, best_effort=record.best_effort, removed=True)


def _recorded(record: StageRecord, needs: tuple[str, ...]) -> StageOutline:
    return StageOutline(record.address.name, record.uses, needs, best_effort=record.best_effort)
