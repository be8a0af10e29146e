"""Expressions: `${{ … }}` inside values, what they refer to, and their value in a scope."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from operator import ge, gt, le, lt
from types import MappingProxyType
from typing import Any, Protocol, TypeAlias

from skyspan.model.expression_parser import parse_template
from skyspan.model.function import FUNCTIONS, text_of
from skyspan.model.secret import Secret
from skyspan.model.syntax import OPEN, Call, ExpressionError, Found, Literal, Node, Operation, Read, Reference, Template
from skyspan.model.value import Unknown, Value, revealed, secrets_in

__all__ = (
    "ExpressionError",
    "Found",
    "Loc",
    "Reference",
    "Scope",
    "Template",
    "evaluate",
    "evaluate_template",
    "has_expression",
    "merge_unknown",
    "parse",
    "pluck",
    "references",
    "texts",
)

Loc: TypeAlias = tuple[str | int, ...]
"""Where something stands in nested data: keys and places from the outside in."""


class Scope(Protocol):
    """Where references get their values."""

    def lookup(self, reference: Reference) -> Value | Unknown:
        """The value; Unknown while nobody can know it; raises LookupError, in words, when there is none."""
        ...


@lru_cache(maxsize=4096)
def parse(text: str) -> Template:
    """Take `text` apart; raises ExpressionError with the offset of what is wrong."""
    return parse_template(text)


def has_expression(value: Value) -> bool:
    """Whether an expression (or an escaped one) stands anywhere in the raw `value`."""
    if isinstance(value, str):
        return OPEN in value
    if isinstance(value, Mapping):
        return any(has_expression(item) for item in value.values())
    return isinstance(value, list | tuple) and any(has_expression(item) for item in value)


def texts(value: Value, loc: Loc = ()) -> Iterator[tuple[Loc, str]]:
    """Every text of the raw `value` that holds an expression, with where it stands."""
    if isinstance(value, str):
        if OPEN in value:
            yield loc, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from texts(item, (*loc, key))
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from texts(item, (*loc, place))


def references(value: Value) -> tuple[Reference, ...]:
    """Every reference in the raw `value`, each once, in order of writing; raises ExpressionError."""
    found = (read.reference for _, text in texts(value) for read in parse(text).reads())
    return tuple(dict.fromkeys(found))


def evaluate(value: Value, scope: Scope) -> Value | Unknown:
    """The raw `value` with every expression replaced by its value; one Unknown with all references if any is unknown.

    Raises ExpressionError for an expression without a value and LookupError for a reference to nothing.
    """
    if isinstance(value, str):
        return evaluate_template(parse(value), scope) if OPEN in value else value
    if isinstance(value, Mapping):
        made = {key: evaluate(item, scope) for key, item in value.items()}
        return merge_unknown(made.values()) or made
    if isinstance(value, list | tuple):
        items = [evaluate(item, scope) for item in value]
        return merge_unknown(items) or items
    return value


def merge_unknown(values: Iterable[Any]) -> Unknown | None:
    """One Unknown for all those among `values`; None if there is none."""
    waiting = [value.references for value in values if isinstance(value, Unknown)]
    return Unknown(frozenset().union(*waiting)) if waiting else None


def pluck(value: Value, steps: Loc, name: str) -> Value:
    """What lies at `steps` inside `value`; raises LookupError that calls the whole `name`."""
    for step in steps:
        inside = isinstance(value, Mapping) if isinstance(step, str) else isinstance(value, list | tuple)
        try:
            value = value[step] if inside else None
        except (KeyError, IndexError):
            inside = False
        if not inside:
            msg = f"{name} has no {step!r}" if isinstance(step, str) else f"{name} has no element {step}"
            raise LookupError(msg)
        name += str(Reference("", (step,)))
    return value


def evaluate_template(template: Template, scope: Scope) -> Value | Unknown:
    """Its value: of any type for a single expression, else a text, which is a Secret if any part is one."""
    if template.single is not None:
        return _value(template.single, scope)
    pieces = [part if isinstance(part, str) else _value(part, scope) for part in template.parts]
    unknown = merge_unknown(pieces)
    if unknown is not None:
        return unknown
    try:
        text = "".join(text_of(revealed(piece)) for piece in pieces)
    except ValueError as error:
        raise ExpressionError(str(error)) from None
    return Secret(text) if any(secrets_in(piece) for piece in pieces) else text


def _value(node: Node, scope: Scope) -> Value | Unknown:
    if isinstance(node, Literal):
        return node.value
    if isinstance(node, Read):
        return scope.lookup(node.reference)
    if isinstance(node, Operation):
        return _operate(node, scope)
    return _default(node, scope) if node.name == "default" else _call(node, scope)


def _default(node: Call, scope: Scope) -> Value | Unknown:
    try:
        value = _value(node.arguments[0], scope)
    except LookupError:
        value = None
    return _value(node.arguments[1], scope) if value is None else value


def _call(node: Call, scope: Scope) -> Value | Unknown:
    arguments = [_value(argument, scope) for argument in node.arguments]
    unknown = merge_unknown(arguments)
    if unknown is not None:
        return unknown
    sensitive = bool(secrets_in(arguments))
    try:
        result = FUNCTIONS[node.name].run(*revealed(arguments))
    except (ValueError, TypeError, OverflowError) as error:
        # The function's own words may quote an argument.
        message = f"{node.name}() cannot use a sensitive argument of this form" if sensitive else str(error)
        raise ExpressionError(message, node.offset) from None
    return Secret(result) if sensitive else result


def _operate(node: Operation, scope: Scope) -> Value | Unknown:
    left = _value(node.sides[0], scope)
    if node.operator == "!":
        return left if isinstance(left, Unknown) else not _truth(left, node)
    if node.operator in ("&&", "||"):
        return _connect(node, left, scope)
    right = _value(node.sides[1], scope)
    unknown = merge_unknown((left, right))
    return unknown if unknown is not None else _compare(node, left, right)


def _connect(node: Operation, left: Value | Unknown, scope: Scope) -> Value | Unknown:
    """`&&` and `||`: the right side counts only when the left one does not decide."""
    if isinstance(left, Unknown):
        try:
            right = _value(node.sides[1], scope)
        except LookupError:
            return left
        return left | right if isinstance(right, Unknown) else left
    if _truth(left, node) is (node.operator == "||"):
        return left
    right = _value(node.sides[1], scope)
    return right if isinstance(right, Unknown) else _truth(right, node)


def _truth(value: Value, node: Operation) -> bool:
    if not isinstance(value, bool):
        msg = f"{node.operator} expects true or false on each side; compare with == or < first"
        raise ExpressionError(msg, node.offset)
    return value


_ORDERINGS: Mapping[str, Callable[[Value, Value], bool]] = MappingProxyType({"<": lt, ">": gt, "<=": le, ">=": ge})


def _compare(node: Operation, left: Value, right: Value) -> bool:
    if isinstance(left, Secret) or isinstance(right, Secret):
        left, right = _comparable(left), _comparable(right)
    if node.operator in ("==", "!="):
        same = type(left) is type(right) or (_is_number(left) and _is_number(right))
        return (same and left == right) is (node.operator == "==")
    if not ((_is_number(left) and _is_number(right)) or (isinstance(left, str) and isinstance(right, str))):
        msg = f"{node.operator} compares two numbers or two texts"
        raise ExpressionError(msg, node.offset)
    return _ORDERINGS[node.operator](left, right)


def _comparable(value: Value) -> Value:
    """Beside a secret everything is compared by its text, as a concealed number has become one."""
    if isinstance(value, Secret):
        return value.reveal()
    return value if isinstance(value, str) else json.dumps(revealed(value), sort_keys=True)


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
