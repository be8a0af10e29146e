"""Pass: connections that stages name exist, are what they should be, and say what `uses: connection` means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

from pydantic import ValidationError

from skyspan.model.composition import ConnectionTemplate, StageDeclaration
from skyspan.model.diagnostic import Diagnostic, Severity
from skyspan.model.expression import Loc, has_expression
from skyspan.model.value import Value
from skyspan.planning.draft import Draft
from skyspan.planning.settings import CONNECTION, NAMING, ORIGIN, TEMPLATE, connection_named, is_template
from skyspan.planning.shape import shape_findings
from skyspan.planning.source import finding, nearest


def join_connections(draft: Draft) -> Draft:
    """Give each stage that says `uses: connection` the provider of its connection; report what prevents that."""
    composition = draft.composition
    draft = draft.found(_entries(draft))
    stages: dict[str, StageDeclaration] = {}
    broken: set[Loc] = set()
    for name, stage in composition.stages.items():
        findings = tuple(_in_stage(draft, name, stage))
        draft = draft.found(findings)
        connection = connection_named(stage.with_)
        uses = _uses(composition.connections.get(connection or "", {}))
        if stage.uses == CONNECTION and uses is not None:
            stages[name] = stage.model_copy(update={"uses": uses})
        if any(item.severity is Severity.ERROR for item in findings) or (stage.uses == CONNECTION and uses is None):
            # Without its connection nothing can be said about its settings, and its provider stays unknown.
            broken.add(("stages", name, "with"))
    if stages:
        composition = composition.model_copy(update={"stages": {**composition.stages, **stages}})
    return replace(draft, composition=composition, broken=draft.broken | broken)


def _uses(entry: Mapping[str, Value]) -> str | None:
    uses = entry.get("uses") if is_template(entry) else None
    return uses if isinstance(uses, str) and not has_expression(uses) else None


def _entries(draft: Draft) -> Iterator[Diagnostic]:
    """What is wrong with entries that are written as templates are."""
    for name, entry in draft.composition.connections.items():
        if not is_template(entry):
            continue
        if name in draft.templates.taken:
            entry = {key: value for key, value in entry.items() if key != ORIGIN}
        try:
            ConnectionTemplate.model_validate(entry)
        except ValidationError as error:
            yield from shape_findings(error, ConnectionTemplate, entry, draft.source, partial(_below, name))
        if has_expression(entry.get("uses")):
            summary = "an expression cannot stand in uses"
            hint = "it must be known before anything runs"
            where = draft.source.value(_below(name, ("uses",)))
            yield finding(draft.source, "misplaced-expression", summary, where, hint)


def _below(name: str, loc: Loc) -> Loc:
    return ("connections", name, *loc)


def _in_stage(draft: Draft, name: str, stage: StageDeclaration) -> Iterator[Diagnostic]:
    at: Loc = ("stages", name, "with")
    given = [key for key in NAMING if isinstance(stage.with_.get(key), str)]
    if len(given) > 1:
        summary = f"stage {name} names its connection twice"
        hint = "`template` and `connection` mean the same: keep one"
        yield finding(draft.source, "two-connections", summary, draft.source.key((*at, given[1])), hint)
        return
    if not given:
        if stage.uses == CONNECTION and not draft.is_broken(at):
            summary = f"stage {name} does not say which connection it uses"
            hint = f"name one: with: {{{TEMPLATE}: NAME}}"
            where = draft.source.value(("stages", name, "uses"))
            yield finding(draft.source, "missing-key", summary, where, hint)
        return
    where = draft.source.value((*at, given[0]))
    named = stage.with_[given[0]]
    if has_expression(named):
        summary = f"an expression cannot stand in {given[0]!r}"
        hint = "it must be known before anything runs; the settings of a connection may hold expressions"
        yield finding(draft.source, "misplaced-expression", summary, where, hint)
        return
    yield from _fits(draft, name, stage, (*at, given[0]), named)


def _fits(draft: Draft, name: str, stage: StageDeclaration, loc: Loc, named: str) -> Iterator[Diagnostic]:
    connections = draft.composition.connections
    where = draft.source.value(loc)
    if named not in connections:
        if not draft.is_broken(("connections", named)):
            summary = f"there is no connection {named!r}"
            yield finding(draft.source, "unknown-connection", summary, where, _missing(draft, named))
        return
    uses = _uses(connections[named])
    if stage.uses == CONNECTION and not is_template(connections[named]):
        summary = f"connection {named} does not say which provider its settings are for"
        hint = f"write it as {named}: {{uses: wireguard, with: {{…}}}}, or name the provider in the stage"
        yield finding(draft.source, "missing-key", summary, where, hint)
    elif uses is not None and stage.uses not in (CONNECTION, uses) and not has_expression(stage.uses):
        summary = f"connection {named} is for {uses}, but stage {name} uses {stage.uses}"
        hint = f"write `uses: {uses}`, or `uses: {CONNECTION}`"
        yield finding(draft.source, "other-provider", summary, where, hint)


def _missing(draft: Draft, named: str) -> str:
    """What to do about a connection that there is not."""
    near = nearest(named, {*draft.composition.connections, *draft.templates.names}, "connections")
    how = f"write it into `connections:`, or add it to the workspace: skyspan connections add {named} FILE"
    return f"{near} If not, {how}" if near.startswith("did you mean") else how
