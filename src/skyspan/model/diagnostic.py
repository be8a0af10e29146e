"""Diagnostics: everything a person is told about a file, with where, what and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad it is: an error stops, a warning does not."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in a file. `line` and `column` count from 1; 0 means the file as a whole."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding. `code` is stable (`unknown-key`); `excerpt` is the source line, for the caret."""

    code: str
    summary: str
    where: Position
    severity: Severity = Severity.ERROR
    detail: str = ""
    hint: str = ""
    excerpt: str = ""

    def render(self) -> str:
        """The pinned form `FILE:LINE:COLUMN: error: …`, then the source line with a caret, detail and hint."""
        lines = [f"{self.where}: {self.severity.value}: {self.summary}"]
        if self.excerpt:
            caret = "".join("\t" if char == "\t" else " " for char in self.excerpt[: max(self.where.column - 1, 0)])
            lines += [f"    {self.excerpt}", f"    {caret}^"]
        lines += [f"    {line}" for line in self.detail.splitlines()]
        if self.hint:
            lines.append(f"    hint: {self.hint}")
        return "\n".join(lines)
