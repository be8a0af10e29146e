"""Whether a stage's outputs keep its contract."""

from __future__ import annotations

from collections.abc import Mapping

from skyspan.model.composition import OutputDeclaration
from skyspan.model.error import OutputError
from skyspan.model.value import OutputValue, Value
from skyspan.model.value_type import ValueType, conform, from_text, parse_type
from skyspan.planning.source import nearest


def check_outputs(
    declared: Mapping[str, OutputDeclaration], produced: Mapping[str, OutputValue], stage: str = ""
) -> dict[str, OutputValue]:
    """The outputs as they may be recorded: the declared ones checked, sensitive ones marked, others as they came.

    Raises OutputError that lists every one that is missing or of another type; sensitive values are not shown.
    """
    checked = dict(produced)
    problems: list[str] = []
    for name, declaration in declared.items():
        if name not in produced or produced[name].value is None:
            if not declaration.optional:
                hint = nearest(name, sorted(set(produced) - set(declared)), "undeclared outputs of the stage")
                problems.append(f"{name}: missing, declared as {declaration.type}" + (f" ({hint})" if hint else ""))
            continue
        sensitive = declaration.sensitive or produced[name].sensitive or declaration.type == "secret"
        try:
            value = _read(produced[name].value, parse_type(declaration.type))
            checked[name] = OutputValue(value, sensitive)
        except ValueError as error:
            said = f"not a {declaration.type} (sensitive, not shown)" if sensitive else str(error)
            problems.append(f"{name}: {said}")
    if problems:
        whose = f"stage {stage}" if stage else "the stage"
        raise OutputError(
            f"{whose} ended, but its outputs are not what it declares",
            detail="\n".join(problems),
            hint="correct the stage, or its `outputs:`; mark what may be missing as optional: true",
        )
    return checked


def _read(value: Value, kind: ValueType) -> Value:
    """The value as its type demands. Some tools can only print text: there the declared type says what it means."""
    try:
        return conform(value, kind)
    except ValueError:
        if not isinstance(value, str):
            raise
        return from_text(value, kind)
