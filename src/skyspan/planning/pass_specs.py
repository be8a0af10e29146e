"""Pass: providers exist and accept the settings, as far as those are known before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from pydantic import ValidationError

from skyspan.contracts.provider import Spec
from skyspan.model.diagnostic import Diagnostic
from skyspan.model.error import StageError
from skyspan.model.expression import has_expression
from skyspan.planning.draft import Draft, SpecOf
from skyspan.planning.settings import settings_of, settings_place
from skyspan.planning.shape import shape_findings
from skyspan.planning.source import finding


def check_specs(draft: Draft) -> Draft:
    """Report providers that there are not, and settings that no value of an expression could make right."""
    return draft if draft.spec_of is None else draft.found(_findings(draft, draft.spec_of))


def _findings(draft: Draft, spec_of: SpecOf) -> Iterator[Diagnostic]:
    models: dict[str, type[Spec] | StageError] = {}
    composition = draft.composition
    for name, stage in composition.stages.items():
        if has_expression(stage.uses) or draft.is_broken(("stages", name, "with")):
            continue
        if stage.uses not in models:
            models[stage.uses] = _model(spec_of, stage.uses)
        model = models[stage.uses]
        if isinstance(model, StageError):
            where = draft.source.value(("stages", name, "uses"))
            yield finding(draft.source, "unknown-provider", model.summary, where, model.hint, model.detail)
            continue
        settings = settings_of(stage, composition.connections)
        try:
            model.model_validate(settings)
        except ValidationError as error:
            place = partial(settings_place, name, stage, composition.connections)
            yield from shape_findings(error, model, settings, draft.source, place, expressions=True)


def _model(spec_of: SpecOf, kind: str) -> type[Spec] | StageError:
    try:
        return spec_of(kind)
    except StageError as error:
        return error
