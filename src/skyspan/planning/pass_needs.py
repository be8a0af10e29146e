"""Pass: stages that `needs` names exist."""

from __future__ import annotations

from collections.abc import Iterator

from skyspan.model.diagnostic import Diagnostic
from skyspan.model.expression import has_expression
from skyspan.planning.draft import Draft
from skyspan.planning.source import finding, nearest


def check_needs(draft: Draft) -> Draft:
    """Report every name in `needs` that is no stage."""
    return draft.found(_findings(draft))


def _findings(draft: Draft) -> Iterator[Diagnostic]:
    stages, source = draft.composition.stages, draft.source
    for name, stage in stages.items():
        for place, needed in enumerate(stage.needs):
            if needed not in stages and not draft.is_broken(("stages", needed)) and not has_expression(needed):
                where = source.value(("stages", name, "needs", place))
                hint = nearest(needed, stages, "stages")
                yield finding(source, "unknown-stage", f"there is no stage {needed!r}", where, hint)
