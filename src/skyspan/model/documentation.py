"""Descriptions of models' fields, taken from the docstrings beneath them, when somebody asks for documentation.

Pydantic can do this as each class is made, but reads and parses the source file for each: start-up time that only
schemas and reference pages need.
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
import typing
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, TypeVar

from pydantic import BaseModel

M = TypeVar("M", bound=BaseModel)


def documented(model: type[M]) -> type[M]:
    """`model` itself, with every field of it and of the models within it described. May be called again."""
    family = tuple(_family(model))
    described = [_describe(member) for member in family]
    if any(described):
        # Those within first: a model's schema holds theirs.
        for member in reversed(family):
            member.model_rebuild(force=True)
    return model


def _family(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The model and every model that its fields hold, at any depth."""
    seen: list[type[BaseModel]] = []
    waiting = [model]
    while waiting:
        one = waiting.pop()
        if one not in seen:
            seen.append(one)
            for field in one.model_fields.values():
                waiting += _models_in(field.annotation)
    yield from seen


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from _models_in(part)


def _describe(model: type[BaseModel]) -> bool:
    """Put the descriptions in; whether any was missing."""
    changed = False
    for owner in model.__mro__:
        if not issubclass(owner, BaseModel) or owner is BaseModel:
            continue
        for name, text in _docstrings(owner):
            field = model.model_fields.get(name)
            if field is not None and field.description is None:
                field.description = text
                changed = True
    return changed


def _docstrings(owner: type) -> Iterator[tuple[str, str]]:
    """Each annotated name in the class body that a string follows, and that string."""
    if owner.__module__ not in sys.modules:
        return
    body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
    statements = body.body if isinstance(body, ast.ClassDef) else []
    for statement, following in pairwise(statements):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
            and isinstance(following.value.value, str)
        ):
            yield statement.target.id, inspect.cleandoc(following.value.value)
