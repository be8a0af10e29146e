"""Where things stand in the file: what every finding needs to point at them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from skyspan.model.diagnostic import Diagnostic, Position, Severity
from skyspan.model.expression import Loc
from skyspan.model.secret import without_auth_keys


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


@dataclass(frozen=True, slots=True)
class WithTemplates:
    """A composition's file together with the workspace's templates, by name, that stand among its `connections`."""

    file: Source
    templates: Mapping[str, Source]

    def key(self, loc: Loc) -> Position:
        source, rest = self._of(loc)
        return source.key(rest)

    def value(self, loc: Loc) -> Position:
        source, rest = self._of(loc)
        return source.value(rest)

    def within(self, loc: Loc, text: str, offset: int) -> Position:
        source, rest = self._of(loc)
        return source.within(rest, text, offset)

    def excerpt(self, where: Position) -> str:
        for source in self.templates.values():
            if source.value(()).file == where.file:
                return source.excerpt(where)
        return self.file.excerpt(where)

    def _of(self, loc: Loc) -> tuple[Source, Loc]:
        if len(loc) > 1 and loc[0] == "connections" and loc[1] in self.templates:
            return self.templates[str(loc[1])], loc[2:]
        return self.file, loc


def finding(
    source: Source,
    code: str,
    summary: str,
    where: Position,
    hint: str = "",
    detail: str = "",
    severity: Severity = Severity.ERROR,
) -> Diagnostic:
    """A diagnostic at `where`, with its source line, but for a key that somebody wrote there."""
    return Diagnostic(code, summary, where, severity, detail, hint, without_auth_keys(source.excerpt(where)))


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
