"""What readiness is made of: conditions that hold or say why not, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Leg:
    """One condition; `reason` says why it fails, `hint` what to look at."""

    name: str
    reason: str = ""
    hint: str = ""

    @property
    def ok(self) -> bool:
        """Whether it holds."""
        return not self.reason

    def record(self) -> dict[str, Any]:
        """As published in a stage's `report`."""
        return {"leg": self.name, "ok": self.ok} | ({"reason": self.reason} if self.reason else {})

    def line(self) -> str:
        """For people."""
        return f"{'ok  ' if self.ok else 'FAIL'} {self.name}{': ' if self.reason else ''}{self.reason}"


def summary(legs: Sequence[Leg]) -> str:
    """The first leg that fails, and how many do; empty when all hold."""
    failed = [leg for leg in legs if not leg.ok]
    if not failed:
        return ""
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    return f"{failed[0].name}: {failed[0].reason}{more}"
