"""What a template of a connection must be before any composition uses it."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import ValidationError

from skyspan.contracts.provider import Spec
from skyspan.model.composition import ConnectionTemplate
from skyspan.model.diagnostic import Diagnostic, Severity
from skyspan.model.error import CompositionError, StageError
from skyspan.model.expression import ExpressionError, Loc, has_expression, parse, texts
from skyspan.model.secret import Secret
from skyspan.model.value import Value
from skyspan.planning.draft import SpecOf
from skyspan.planning.literal_secrets import literal_secrets
from skyspan.planning.pass_references import ROOTS
from skyspan.planning.shape import locate, shape_findings
from skyspan.planning.source import Source, finding, nearest


def check_template(
    raw: Value, source: Source, spec_of: SpecOf, earlier: tuple[Diagnostic, ...] = ()
) -> ConnectionTemplate:
    """The template out of its YAML; raises CompositionError with every error, `earlier` ones too.

    Settings may lack what stages give, and expressions read what only a composition can have; a secret that is
    written out is an error, of which nothing is shown.
    """
    secret_places = _written_out(raw, spec_of)
    findings = [*earlier, *_findings(raw, source, spec_of)]
    hidden = {source.value(loc).line for loc in secret_places}
    shown = [item for item in findings if item.where.line not in hidden]
    found = sorted(
        (*shown, *(_secret(source, loc) for loc in secret_places)), key=lambda item: (item.where, item.summary)
    )
    if any(item.severity is Severity.ERROR for item in found):
        raise CompositionError(tuple(dict.fromkeys(found)))
    return ConnectionTemplate.model_validate(raw)


def _findings(raw: Value, source: Source, spec_of: SpecOf) -> Iterator[Diagnostic]:
    if not isinstance(raw, dict):
        summary = "a template is a mapping with `uses` and `with`"
        yield finding(source, "wrong-type", summary, source.value(()), "uses: wireguard\nwith: {allow: [icmp]}")
        return
    try:
        ConnectionTemplate.model_validate(raw)
    except ValidationError as error:
        yield from shape_findings(error, ConnectionTemplate, raw, source, lambda loc: loc)
    for key in ("uses", "description"):
        if has_expression(raw.get(key)):
            hint = "expressions belong in `with`"
            summary = f"an expression cannot stand in {key}"
            yield finding(source, "misplaced-expression", summary, source.value((key,)), hint)
    settings = raw.get("with")
    yield from _expressions(settings, source)
    uses = raw.get("uses")
    if isinstance(uses, str) and not has_expression(uses):
        yield from _settings(uses, settings if isinstance(settings, dict) else {}, source, spec_of)


def _settings(uses: str, settings: Value, source: Source, spec_of: SpecOf) -> Iterator[Diagnostic]:
    try:
        model = spec_of(uses)
    except StageError as error:
        yield finding(source, "unknown-provider", error.summary, source.value(("uses",)), error.hint, error.detail)
        return
    try:
        model.model_validate(settings)
    except ValidationError as error:
        yield from shape_findings(
            error, model, settings, source, lambda loc: ("with", *loc), expressions=True, partial=True
        )


def _expressions(settings: Value, source: Source) -> Iterator[Diagnostic]:
    for loc, text in texts(settings, ("with",)):
        try:
            reads = parse(text).reads()
        except ExpressionError as error:
            yield finding(source, "invalid-expression", error.message, source.within(loc, text, error.offset))
            continue
        for read in reads:
            if read.reference.root not in ROOTS:
                where = source.within(loc, text, read.offset)
                hint = nearest(read.reference.root, ROOTS, "an expression reads")
                yield finding(source, "unknown-reference", f"{read.reference} refers to nothing", where, hint)


def _written_out(raw: Value, spec_of: SpecOf) -> list[Loc]:
    """Where a secret is written out: by its name, by its form, or because the provider takes only a secret there."""
    found = dict.fromkeys(literal_secrets(raw))
    settings = raw.get("with") if isinstance(raw, dict) else None
    model = _model(spec_of, raw["uses"]) if isinstance(settings, dict) and "uses" in raw else None
    try:
        if model is not None:
            model.model_validate(settings)
    except ValidationError as error:
        for item in error.errors(include_url=False):
            wants_secret = item["type"] == "is_instance_of" and item["ctx"].get("class") == Secret.__name__
            if wants_secret and isinstance(item["input"], str) and not has_expression(item["input"]):
                found[("with", *locate(item["loc"], item["type"], settings))] = None
    return list(found)


def _model(spec_of: SpecOf, uses: Value) -> type[Spec] | None:
    try:
        return spec_of(uses) if isinstance(uses, str) else None
    except StageError:
        return None  # told with the settings


def _secret(source: Source, loc: Loc) -> Diagnostic:
    """That it is there, and nothing of it: no source line either."""
    summary = f"{loc[-1]} is a secret, and it is written out here"
    hint = "keep it in the workspace: echo -n VALUE | skyspan secrets set NAME; then write ${{ secrets.NAME }}"
    return Diagnostic("literal-secret", summary, source.value(loc), hint=hint)
