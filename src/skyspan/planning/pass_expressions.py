"""Pass: every expression can be read and stands where one may."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from skyspan.model.diagnostic import Diagnostic
from skyspan.model.expression import ExpressionError, Loc, has_expression, parse, texts
from skyspan.model.value import Value
from skyspan.planning.draft import Draft, Text
from skyspan.planning.settings import host_fields
from skyspan.planning.source import finding


def read_expressions(draft: Draft) -> Draft:
    """Read every text that holds an expression; report those that cannot be read or stand in the wrong place."""
    read: list[Text] = []
    findings: list[Diagnostic] = []
    for loc, text in _all_texts(draft):
        try:
            read.append(Text(loc, text, parse(text)))
        except ExpressionError as error:
            where = draft.source.within(loc, text, error.offset)
            findings.append(finding(draft.source, "invalid-expression", error.message, where, _hint(error)))
    return replace(draft, texts=tuple(read)).found([*findings, *_misplaced(draft), *_conditions(draft, read)])


def _hint(error: ExpressionError) -> str:
    if error.message.startswith("unterminated"):
        return "close it with }}; write $${{ for the characters themselves"
    return ""


def _all_texts(draft: Draft) -> Iterator[tuple[Loc, str]]:
    composition = draft.composition
    for name, host in composition.hosts.items():
        yield from texts(host_fields(host), ("hosts", name))
    for name, stage in composition.stages.items():
        yield from texts(stage.with_, ("stages", name, "with"))
        yield from texts(stage.if_, ("stages", name, "if"))
    yield from texts(composition.connections, ("connections",))


def _misplaced(draft: Draft) -> Iterator[Diagnostic]:
    composition, source = draft.composition, draft.source
    places: list[tuple[Loc, Value]] = [(("description",), composition.description)]
    for name, stage in composition.stages.items():
        at = ("stages", name)
        places += [((*at, "uses"), stage.uses), ((*at, "site"), stage.site)]
        places += [((*at, "needs", place), need) for place, need in enumerate(stage.needs)]
    places += [(("hosts", name, "jump"), host.jump) for name, host in composition.hosts.items()]
    for loc, value in places:
        if has_expression(value):
            summary = f"an expression cannot stand in {loc[-1] if isinstance(loc[-1], str) else loc[-2]!r}"
            hint = "it must be known before anything runs; expressions belong in `with`, `if` and hosts"
            yield finding(source, "misplaced-expression", summary, source.value(loc), hint)


def _conditions(draft: Draft, read: list[Text]) -> Iterator[Diagnostic]:
    conditions = {text.loc: text.template for text in read if text.loc[0] == "stages" and text.loc[2] == "if"}
    for name, stage in draft.composition.stages.items():
        loc = ("stages", name, "if")
        template = conditions.get(loc)
        unread = template is None and isinstance(stage.if_, str) and has_expression(stage.if_)
        if isinstance(stage.if_, bool) or unread or (template is not None and template.single is not None):
            continue
        summary = f"`if` of stage {name} must be true, false or one expression"
        hint = "write it as one expression: if: \"${{ inputs.mode == 'full' }}\""
        yield finding(draft.source, "wrong-type", summary, draft.source.value(loc), hint)
