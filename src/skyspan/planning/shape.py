"""Shape errors: what pydantic found, in words people use, at the exact place, without what expressions excuse."""

from __future__ import annotations

import difflib
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from skyspan.contracts.provider import Spec
from skyspan.model.address import NAME_PATTERN
from skyspan.model.diagnostic import Diagnostic, Position
from skyspan.model.error import SpecError
from skyspan.model.expression import Loc, has_expression
from skyspan.model.secret import Secret
from skyspan.model.value import Value
from skyspan.planning.source import Source, dotted, finding, nearest

_EXPECTED = types.MappingProxyType(
    {
        "string_type": "a text (put quotes around it)",
        "int_type": "a whole number",
        "int_parsing": "a whole number",
        "int_from_float": "a whole number",
        "float_type": "a number",
        "float_parsing": "a number",
        "bool_type": "true or false",
        "bool_parsing": "true or false",
        "dict_type": "a mapping (key: value)",
        "model_type": "a mapping (key: value)",
        "model_attributes_type": "a mapping (key: value)",
        "list_type": "a list",
        "tuple_type": "a list",
        "set_type": "a list",
        "frozen_set_type": "a list",
        "none_required": "nothing",
        "is_instance_of": "a secret, written as ${{ secrets.NAME }}",
    }
)

_UNKNOWN = "extra_forbidden"
_NAME_HINT = "a name starts with a lower-case letter and goes on with lower-case letters, digits, - and _"


def shape_findings(
    error: ValidationError,
    model: type[BaseModel],
    raw: Value,
    source: Source,
    place: Callable[[Loc], Loc],
    *,
    expressions: bool = False,
    partial: bool = False,
) -> Iterator[Diagnostic]:
    """Every error of validating `raw`, without those that `expressions` in it may still mend, if there may be any.

    `place` says where in the file a location of `raw` stands. A `partial` one is laid under another: what its mappings
    lack, and what contradicts itself as a whole, is no error yet.
    """
    expected: dict[Loc, list[dict[str, Any]]] = {}
    seen: set[tuple[Position, str]] = set()
    found = error.errors(include_url=False, include_context=True)
    misspelt = {_meant(locate(item["loc"], item["type"], raw), model) for item in found if item["type"] == _UNKNOWN}
    for item in found:
        loc, inside, branches = _locate(item["loc"], item["type"], raw)
        if (expressions and _excused(item["type"], inside, branches)) or _follows(dict(item), loc, inside, misspelt):
            continue
        if partial and _may_come(item["type"], loc, inside[-1]):
            continue
        if item["type"] in _EXPECTED:
            expected.setdefault(loc, []).append(dict(item))
            continue
        made = _finding(dict(item), loc, model, source, place)
        if (made.where, made.summary) not in seen:
            seen.add((made.where, made.summary))
            yield made
    for loc, items in expected.items():
        yield _wrong_type(items, place(loc), source)


def _meant(loc: Loc, model: type[BaseModel]) -> Loc:
    """The key that an unknown one was probably meant to be, where it stands."""
    near = difflib.get_close_matches(str(loc[-1]), _keys_at(model, loc[:-1]), 1)
    return (*loc[:-1], *near)


def _follows(item: dict[str, Any], loc: Loc, way: list[Value], misspelt: set[Loc]) -> bool:
    """Whether the error only follows from another: a key missing because it is misspelt, a list short of bad items."""
    if item["type"] == "missing":
        return loc in misspelt
    return item["type"] == "too_short" and bool(len(way[-1]) >= item["ctx"].get("min_length", 1))


def _may_come(kind: str, loc: Loc, value: Value) -> bool:
    """Whether what lies over the settings may mend it: not within lists, which are replaced as a whole."""
    whole = kind == "missing" or (kind == "value_error" and isinstance(value, Mapping))
    return whole and not any(isinstance(step, int) for step in loc)


def _wrong_type(items: list[dict[str, Any]], full: Loc, source: Source) -> Diagnostic:
    """One finding for one value, however many types were tried on it; that it may be secret goes without saying."""
    wanted = dict.fromkeys(_EXPECTED[item["type"]] for item in items if item["type"] != "is_instance_of")
    words = " or ".join(wanted or [_EXPECTED["is_instance_of"]])
    summary = f"{dotted(full) or 'the file'}: expected {words}, got {_shown(items[0].get('input'))}"
    return finding(source, "wrong-type", summary, source.value(full))


def locate(item_loc: Loc, kind: str, raw: Value) -> Loc:
    """The part of a pydantic location that stands in `raw` (it also holds names of union branches); for an error of
    kind `missing` with the key that is not there."""
    return _locate(item_loc, kind, raw)[0]


def _locate(item_loc: Loc, kind: str, raw: Value) -> tuple[Loc, list[Value], list[Value]]:
    """The location in `raw`, the values on the way to it, and those where pydantic tried several branches."""
    loc: list[str | int] = []
    way, branches = [raw], []
    for place, step in enumerate(item_loc):
        value = way[-1]
        present = step in value if isinstance(value, Mapping) else _has_place(value, step)
        if present:
            way.append(value[step])
            loc.append(step)
        elif kind == "missing" and place == len(item_loc) - 1 and isinstance(value, Mapping):
            loc.append(step)
        else:
            branches.append(value)
    return tuple(loc), way, branches


def _has_place(value: Value, step: str | int) -> bool:
    return isinstance(value, list | tuple) and isinstance(step, int) and step < len(value)


def _excused(kind: str, way: list[Value], branches: list[Value]) -> bool:
    """Whether the error may vanish once expressions have values: a wrong key or a missing one never does."""
    if any(has_expression(value) for value in branches):
        return True
    return kind not in (_UNKNOWN, "missing") and has_expression(way[-1])


def _finding(
    item: dict[str, Any], loc: Loc, model: type[BaseModel], source: Source, place: Callable[[Loc], Loc]
) -> Diagnostic:
    kind, full = item["type"], place(loc)
    if kind == _UNKNOWN:
        hint = nearest(loc[-1], _keys_at(model, loc[:-1]), "allowed here")
        return finding(source, "unknown-key", f"unknown key {str(loc[-1])!r}{_in(full[:-1])}", source.key(full), hint)
    if kind == "missing":
        where = source.key(full[:-1]) if len(full) > 1 else source.value(full[:-1])
        return finding(source, "missing-key", f"missing key {str(loc[-1])!r}{_in(full[:-1])}", where)
    if full and item["loc"] and item["loc"][-1] == "[key]":
        summary = f"{dotted(full)}: {full[-1]!r} is no valid name"
        return finding(source, "invalid-name", summary, source.key(full), _NAME_HINT)
    if kind == "string_pattern_mismatch" and item["ctx"].get("pattern") == NAME_PATTERN:
        summary = f"{dotted(full)}: {_shown(item.get('input'))} is no valid name"
        return finding(source, "invalid-name", summary, source.value(full), _NAME_HINT)
    return finding(source, "invalid-value", f"{dotted(full) or 'the file'}: {_words(item)}", source.value(full))


def _in(loc: Loc) -> str:
    return f" in {dotted(loc)}" if loc else ""


def _words(item: Mapping[str, Any]) -> str:
    kind, context, given = item["type"], item.get("ctx") or {}, item.get("input")
    if kind == "value_error":
        return str(context.get("error", item["msg"]))
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}, got {_shown(given)}"
    if kind in ("literal_error", "enum"):
        return f"expected {context.get('expected')}, got {_shown(given)}"
    if kind == "string_pattern_mismatch":
        return f"{_shown(given)} has not the expected form"
    if kind == "too_short":
        least = context.get("min_length", 1)
        return f"must hold at least {least} {'entry' if least == 1 else 'entries'}"
    message = str(item["msg"])
    return (message[:1].lower() + message[1:]).replace("input should", "must")


def _shown(value: Value) -> str:
    match value:
        case None:
            return "nothing (null)"
        case bool():
            return str(value).lower()
        case str():
            return repr(value) if len(value) <= 60 else f"{value[:57]!r}…"
        case Secret():
            return "a secret"
        case Mapping():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case _:
            return f"{value}"


def _keys_at(model: type[BaseModel], loc: Loc) -> frozenset[str]:
    """The keys allowed at `loc` of `model`'s data, in every branch that may be meant."""
    kinds: list[Any] = [model]
    for step in loc:
        kinds = [inner for kind in kinds for inner in _step(kind, step)]
    return frozenset(
        (field.alias or name)
        for kind in kinds
        for plain in _plain(kind)
        if isinstance(plain, type) and issubclass(plain, BaseModel)
        for name, field in plain.model_fields.items()
    )


def _step(kind: Any, step: str | int) -> Iterator[Any]:
    for plain in _plain(kind):
        if isinstance(plain, type) and issubclass(plain, BaseModel):
            for name, field in plain.model_fields.items():
                if step in (name, field.alias):
                    yield field.annotation
        elif get_args(plain):
            yield get_args(plain)[-1] if isinstance(step, str) else get_args(plain)[0]


def _plain(kind: Any) -> Iterator[Any]:
    """The types that `kind` may be, without Annotated and unions around them."""
    origin = get_origin(kind)
    if origin is Annotated:
        yield from _plain(get_args(kind)[0])
    elif origin in (Union, types.UnionType):
        for member in get_args(kind):
            yield from _plain(member)
    else:
        yield kind


def build_spec(stage: str, model: type[Spec], settings: Mapping[str, Value]) -> Spec:
    """The stage's spec out of fully known settings; raises SpecError that names every wrong one, no value shown."""
    try:
        return model.model_validate(settings)
    except ValidationError as error:
        lines = []
        for item in error.errors(include_url=False, include_input=False):
            where = dotted(("stages", stage, "with", *locate(item["loc"], item["type"], settings)))
            lines.append(f"{where}: {_told(dict(item), model, settings)}")
        raise SpecError(f"the settings of stage {stage} cannot work", detail="\n".join(dict.fromkeys(lines))) from None


def _told(item: dict[str, Any], model: type[BaseModel], settings: Mapping[str, Value]) -> str:
    loc, way, _ = _locate(item["loc"], item["type"], settings)
    if item["type"] == _UNKNOWN:
        return f"unknown key; {nearest(loc[-1], _keys_at(model, loc[:-1]), 'allowed here')}"
    if item["type"] == "missing":
        return "missing"
    given = way[-1]
    return _words({**item, "input": given})
