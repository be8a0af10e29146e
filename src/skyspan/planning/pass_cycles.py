"""Pass: there is an order in which every stage comes after what it needs; else the way round is shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from skyspan.model.diagnostic import Diagnostic
from skyspan.planning.draft import Draft
from skyspan.planning.graph import CycleError, cycles, topological_order
from skyspan.planning.pass_dependencies import why
from skyspan.planning.source import finding


def find_order(draft: Draft) -> Draft:
    """Fill `order`, or report each circle with every step of it."""
    try:
        return replace(draft, order=topological_order(draft.needs))
    except CycleError:
        return draft.found(_findings(draft))


def _findings(draft: Draft) -> Iterator[Diagnostic]:
    for circle in cycles(draft.needs):
        steps = [
            (stage, needed, *why(draft, stage, needed))
            for stage, needed in zip(circle, (*circle[1:], circle[0]), strict=True)
        ]
        detail = "\n".join(f"{stage} {reason}: {needed} ({place})" for stage, needed, reason, place in steps)
        if len(circle) == 1:
            summary = f"stage {circle[0]} waits for itself"
        else:
            summary = f"stages wait for each other: {' → '.join((*circle, circle[0]))}"
        hint = "take one of these references away"
        yield finding(draft.source, "cycle", summary, steps[0][3], hint, detail)
