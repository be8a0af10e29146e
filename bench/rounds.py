"""Alternating rounds (A B A B …): what else the machine does falls on all subjects alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import TypeVar

from bench.processes import Sample

T = TypeVar("T")


def alternate(subjects: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Every subject once per round, in the opposite order every second round."""
    found: dict[str, list[T]] = {name: [] for name in subjects}
    for number in range(rounds):
        names = list(subjects) if number % 2 == 0 else list(subjects)[::-1]
        for name in names:
            found[name].append(subjects[name]())
    return found


def wall(samples: Sequence[Sample]) -> float:
    """The median of the wall times, in seconds."""
    return median(sample.wall_s for sample in samples)


def cpu(samples: Sequence[Sample]) -> float:
    """The median of the processor times, in seconds."""
    return median(sample.cpu_s for sample in samples)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` (0 to 1) of all values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
