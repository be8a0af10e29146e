"""The fixed part of a run: its stages by number and who waits for whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from skyspan.model.event import RunStarted, StageOutline
from skyspan.model.lifecycle import Verb


@dataclass(frozen=True, slots=True)
class Shape:
    """Stages in the order given; `dependents[i]` wait for stage `i`, `unmet[i]` counts what `i` waits for."""

    outlines: tuple[StageOutline, ...]
    index: Mapping[str, int]
    dependents: tuple[tuple[int, ...], ...]
    unmet: tuple[int, ...]


def shape_of(started: RunStarted) -> Shape:
    """The shape of a run. Needs that name no stage of the run are outside it and do not count.

    A check only looks, at what was recorded, so no stage waits for another. Raises ValueError for a name given twice
    and for needs that go in a circle, which planning has excluded.
    """
    index: dict[str, int] = {}
    for place, outline in enumerate(started.stages):
        if outline.name in index:
            msg = f"stage {outline.name} is in the run twice"
            raise ValueError(msg)
        index[outline.name] = place
    ordered = started.verb is not Verb.CHECK
    needs = [
        sorted({index[name] for name in outline.needs if name in index}) if ordered else []
        for outline in started.stages
    ]
    dependents: list[list[int]] = [[] for _ in started.stages]
    for place, wanted in enumerate(needs):
        for need in wanted:
            dependents[need].append(place)
    shape = Shape(
        outlines=started.stages,
        index=MappingProxyType(index),
        dependents=tuple(tuple(places) for places in dependents),
        unmet=tuple(len(wanted) for wanted in needs),
    )
    _refuse_circle(shape)
    return shape


def _refuse_circle(shape: Shape) -> None:
    unmet = list(shape.unmet)
    free = [place for place, count in enumerate(unmet) if not count]
    for place in free:
        for dependent in shape.dependents[place]:
            unmet[dependent] -= 1
            if not unmet[dependent]:
                free.append(dependent)
    if len(free) < len(unmet):
        stuck = ", ".join(shape.outlines[place].name for place, count in enumerate(unmet) if count)
        msg = f"these stages wait for each other: {stuck}"
        raise ValueError(msg)
