"""Where things stand in the file: what every finding needs to point at them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from skyspan.model.diagnostic import Diagnostic, Position, Severity
from skyspan.model.expression import Loc


class Source(Protocol):
    """The file a composition was read from. What does not stand in it is given the place of what holds it."""

    def key(self, loc: Loc) -> Position:
        """Where the last step of `loc` is written as a key (for a list's element: the element)."""
        ...

    def value(self, loc: Loc) -> Position:
        """Where the value at `loc` begins."""
        ...

    def within(self, loc: Loc, text: str, offset: int) -> Position:
        """Where character `offset` of `text`, the value at `loc`, stands; as near as its notation allows."""
        ...

    def excerpt(self, where: Position) -> str:
        """The line at `where`; empty if there is none."""
        ...


@dataclass(frozen=True, slots=True)
class NoSource:
    """For a composition that comes from nowhere in particular, such as a record: the `loc` stands for the place."""

    name: str = "skyspan.yaml"

    def key(self, loc: Loc) -> Position:
        return Position(self.name)

    def value(self, loc: Loc) -> Position:
        return Position(self.name)

    def within(self, loc: Loc, text: str, offset: int) -> Position:
        return Position(self.name)

    def excerpt(self, where: Position) -> str:
        return ""


def finding(
    source: Source,
    code: str,
    summary: str,
    where: Position,
    hint: str = "",
    detail: str = "",
    severity: Severity = Severity.ERROR,
) -> Diagnostic:
    """A diagnostic at `where`, with its source line."""
    return Diagnostic(code, summary, where, severity, detail, hint, source.excerpt(where))


def nearest(name: object, known: Iterable[str], what: str = "") -> str:
    """A hint that names what was probably meant, else what there is."""
    names = list(known)
    near = difflib.get_close_matches(str(name), names, 1, 0.6)
    if near:
        return f"did you mean {near[0]}?"
    if not names:
        return f"there are no {what}" if what else ""
    listed = ", ".join(sorted(names)[:12]) + (", …" if len(names) > 12 else "")
    return f"{what or 'allowed'}: {listed}"


def dotted(loc: Loc) -> str:
    """`loc` as people write it: `stages.link.with.between[0].host`."""
    text = ""
    for step in loc:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text
