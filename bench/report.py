"""What was measured, as values, as a table for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

SELF = "skyspan"


@dataclass(frozen=True, slots=True)
class Row:
    """One subject's result, in the measure's unit. `value` is None where there is none; `note` then says why."""

    subject: str
    value: float | None
    cpu: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Measure:
    """One thing measured, for Skyspan (the first row whose subject begins with its name) and for its peers."""

    title: str
    unit: str
    rows: tuple[Row, ...]
    budget: str = ""
    more_is_better: bool = False

    @property
    def own(self) -> float | None:
        """Skyspan's value."""
        return next((row.value for row in self.rows if row.subject.startswith(SELF)), None)

    def ratio(self, row: Row) -> float | None:
        """The row's value as a multiple of Skyspan's."""
        return row.value / self.own if row.value is not None and self.own else None

    def document(self) -> dict[str, Any]:
        """As JSON data."""
        rows = [{**asdict(row), "ratio": self.ratio(row)} for row in self.rows]
        return {**asdict(self), "rows": rows}


def table(measures: Iterable[Measure]) -> str:
    """All measures as text, a line per subject."""
    return "\n\n".join(_block(measure) for measure in measures)


def _block(measure: Measure) -> str:
    wanted = f"   wanted: {measure.budget}" if measure.budget else ""
    direction = ", more is better" if measure.more_is_better else ""
    lines = [f"{measure.title} [{measure.unit}{direction}]{wanted}"]
    width = max(len(row.subject) for row in measure.rows)
    for row in measure.rows:
        value = "-" if row.value is None else _number(row.value)
        ratio = measure.ratio(row)
        shown = "" if ratio is None else f"{_number(ratio)}x"
        spent = "" if row.cpu is None else f"cpu {_number(row.cpu)}"
        lines.append(f"  {row.subject:<{width}}  {value:>9}  {shown:>9}  {spent:<10}  {row.note}".rstrip())
    return "\n".join(lines)


def _number(value: float) -> str:
    for limit, digits in ((100.0, 0), (10.0, 1), (1.0, 2)):
        if abs(value) >= limit:
            return f"{value:.{digits}f}"
    return f"{value:.3f}"
