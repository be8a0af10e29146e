"""Which stages a run covers: all, or those that `--only` names with what they need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from skyspan.model.error import UsageError
from skyspan.planning.graph import reach
from skyspan.planning.source import nearest


def select(needs: Mapping[str, frozenset[str]], only: Iterable[str]) -> frozenset[str]:
    """The stages in `only` and everything they need; all stages when `only` is empty. Raises UsageError."""
    chosen = tuple(only)
    for name in chosen:
        if name not in needs:
            raise UsageError(f"there is no stage {name!r}", hint=nearest(name, needs, "stages"))
    return reach(needs, chosen) if chosen else frozenset(needs)
