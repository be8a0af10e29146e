"""What an expression is made of: references, operators and calls, as data."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from skyspan.model.value import Value

OPEN, CLOSE, ESCAPED_OPEN = "${{", "}}", "$${{"

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*\Z")


class ExpressionError(ValueError):
    """An expression that cannot be read or has no value. `offset` counts characters of the text it stands in."""

    def __init__(self, message: str, offset: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """What an expression refers to: a root (`inputs`, `stages`, `hosts`, `secrets`) and the way down from it."""

    root: str
    path: tuple[str | int, ...] = ()

    def __str__(self) -> str:
        return self.root + "".join(self._step(step) for step in self.path)

    @staticmethod
    def _step(step: str | int) -> str:
        if isinstance(step, int):
            return f"[{step}]"
        if _IDENTIFIER.match(step):
            return f".{step}"
        quoted = step.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\t", "\\t")
        return f"['{quoted}']"


@dataclass(frozen=True, slots=True)
class Literal:
    """A text, a number, true, false or null."""

    value: Value


@dataclass(frozen=True, slots=True)
class Read:
    """A reference where it stands."""

    reference: Reference
    offset: int


@dataclass(frozen=True, slots=True)
class Call:
    """A function call."""

    name: str
    arguments: tuple[Node, ...]
    offset: int


@dataclass(frozen=True, slots=True)
class Operation:
    """An operator (`!`, `&&`, `||`, `==`, `!=`, `<`, `>`, `<=`, `>=`) and its one or two sides."""

    operator: str
    sides: tuple[Node, ...]
    offset: int


Node: TypeAlias = Literal | Read | Call | Operation


@dataclass(frozen=True, slots=True)
class Found:
    """A reference in a text. It is `guarded` where `default()` has a fallback for it."""

    reference: Reference
    offset: int
    guarded: bool = False


@dataclass(frozen=True, slots=True)
class Template:
    """A text taken apart: literal pieces and expressions in turn."""

    parts: tuple[str | Node, ...]

    @property
    def single(self) -> Node | None:
        """The expression, when the text is nothing but one."""
        return self.parts[0] if len(self.parts) == 1 and not isinstance(self.parts[0], str) else None

    def reads(self) -> Iterator[Found]:
        """Every reference, in order of writing."""
        for part in self.parts:
            if not isinstance(part, str):
                yield from _reads(part, guarded=False)


def _reads(node: Node, *, guarded: bool) -> Iterator[Found]:
    if isinstance(node, Read):
        yield Found(node.reference, node.offset, guarded)
    elif isinstance(node, Call):
        for place, argument in enumerate(node.arguments):
            yield from _reads(argument, guarded=guarded or (node.name == "default" and place == 0))
    elif isinstance(node, Operation):
        for side in node.sides:
            yield from _reads(side, guarded=guarded)
