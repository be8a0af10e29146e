"""Pass: types of inputs and outputs can be read, and what is given for them is of that type."""

from __future__ import annotations

from collections.abc import Iterator

from skyspan.model.diagnostic import Diagnostic
from skyspan.model.expression import Loc, has_expression
from skyspan.model.value import Value
from skyspan.model.value_type import TYPE_NAMES, ValueType, conform, parse_type
from skyspan.planning.draft import Draft
from skyspan.planning.source import finding, nearest


def check_declarations(draft: Draft) -> Draft:
    """Report types that do not exist, and defaults and examples that are not of their type."""
    return draft.found([*_inputs(draft), *_outputs(draft)])


def _inputs(draft: Draft) -> Iterator[Diagnostic]:
    for name, declared in draft.composition.inputs.items():
        given = "default" in declared.model_fields_set and declared.default is not None
        yield from _declared(draft, ("inputs", name), declared.type, "default", declared.default if given else None)


def _outputs(draft: Draft) -> Iterator[Diagnostic]:
    for stage, declared in draft.composition.stages.items():
        for name, output in declared.outputs.items():
            at = ("stages", stage, "outputs", name)
            yield from _declared(draft, at, output.type, "example", output.example)


def _declared(draft: Draft, at: Loc, type_text: str, key: str, value: Value) -> Iterator[Diagnostic]:
    source = draft.source
    try:
        kind: ValueType = parse_type(type_text)
    except ValueError as error:
        hint = nearest(type_text, [name for name in TYPE_NAMES if "<" not in name])
        yield finding(source, "wrong-type", str(error), source.value((*at, "type")), hint if "mean" in hint else "")
        return
    if value is None:
        return
    where = source.value((*at, key))
    if has_expression(value):
        yield finding(source, "misplaced-expression", f"a {key} is a plain value, not an expression", where)
        return
    try:
        conform(value, kind)
    except ValueError as error:
        yield finding(source, "wrong-type", f"{key} of {at[-1]}: {error}", where, f"it is declared as {kind}")
