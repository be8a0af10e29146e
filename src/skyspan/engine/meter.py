"""Measures how long a link carried traffic: availability, outages, time to repair: pure, from its probes alone.

It knows nothing of the supervisor, so that a mistake there cannot hide an outage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from skyspan.contracts.watch import Passage

MONTH_S = 30 * 24 * 3600.0

Direction = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Outage:
    """From the first probe that failed to the first that passed again, in seconds of the meter's clock. `ended` is None
    while it lasts, `seen` the latest probe that failed; `fault` is what is known to have caused it, empty when nothing
    is."""

    direction: Direction
    began: float
    ended: float | None = None
    fault: str = ""
    seen: float = 0.0

    @property
    def lasted_s(self) -> float:
        """How long it took, or has taken up to now."""
        return (max(self.seen, self.began) if self.ended is None else self.ended) - self.began


@dataclass(frozen=True, slots=True)
class Meter:
    """What was measured so far. `watched` and `failed` are seconds by direction; times when an end could not be asked
    count as neither."""

    watched: Mapping[Direction, float] = field(default_factory=lambda: MappingProxyType({}))
    failed: Mapping[Direction, float] = field(default_factory=lambda: MappingProxyType({}))
    outages: tuple[Outage, ...] = ()


def measured(meter: Meter, found: Sequence[Passage], now: float, lasted_s: float, fault: str = "") -> Meter:
    """After a probe of every direction that stands for `lasted_s` seconds."""
    for passage in found:
        if passage.passed is not None:
            meter = _counted(meter, passage, now, lasted_s, fault)
    return meter


def _counted(meter: Meter, passage: Passage, now: float, lasted_s: float, fault: str) -> Meter:
    direction = (passage.source, passage.target)
    watched = {**meter.watched, direction: meter.watched.get(direction, 0.0) + lasted_s}
    failed, outages = dict(meter.failed), list(meter.outages)
    open_at = next(
        (place for place, item in enumerate(outages) if item.direction == direction and item.ended is None), None
    )
    if passage.passed is False:
        failed[direction] = failed.get(direction, 0.0) + lasted_s
        if open_at is None:
            outages.append(Outage(direction, now, fault=fault, seen=now))
        else:
            outages[open_at] = replace(outages[open_at], seen=now)
    elif open_at is not None:
        outages[open_at] = replace(outages[open_at], ended=now)
    return Meter(watched, failed, tuple(outages))


def named(meter: Meter, fault: str) -> Meter:
    """After a diagnosis: what causes the outages that go on, where nothing is known of it yet."""
    outages = (replace(item, fault=fault) if item.ended is None and not item.fault else item for item in meter.outages)
    return replace(meter, outages=tuple(outages))


def availability(meter: Meter, direction: Direction | None = None) -> float:
    """The share of the watched time in which traffic passed, of one direction or of the worst; 1.0 before any was
    watched."""
    ways = meter.watched if direction is None else (direction,)
    shares = (1 - meter.failed.get(way, 0.0) / meter.watched[way] for way in ways if meter.watched.get(way))
    return min(shares, default=1.0)


def outages_of(meter: Meter, direction: Direction) -> tuple[Outage, ...]:
    """The outages of one direction, in the order in which they began."""
    return tuple(item for item in meter.outages if item.direction == direction)


def longest_outage_s(meter: Meter, direction: Direction | None = None) -> float:
    """How long the longest outage took, of one direction or of all; one that goes on counts as far as it was seen.
    0.0 when there was none."""
    found = meter.outages if direction is None else outages_of(meter, direction)
    return max((item.lasted_s for item in found), default=0.0)


@dataclass(frozen=True, slots=True)
class Mended:
    """The outages by one cause that are over: how many there were, and the mean (MTTR) and longest time to repair."""

    outages: int
    mean_s: float
    longest_s: float


def mended(meter: Meter) -> Mapping[str, Mended]:
    """By what caused them, the outages that are over. Directions that failed for the same time are one outage."""
    times: dict[str, list[float]] = {}
    for item in _together(meter.outages):
        if item.ended is not None:
            times.setdefault(item.fault, []).append(item.lasted_s)
    return {fault: Mended(len(took), sum(took) / len(took), max(took)) for fault, took in times.items()}


def repair_times_s(meter: Meter) -> Mapping[str, float]:
    """The mean time to repair by what caused the outage (MTTR), of those that are over."""
    return {fault: told.mean_s for fault, told in mended(meter).items()}


def outage_count(meter: Meter) -> int:
    """How many outages there were, however many directions each of them took."""
    return len(_together(meter.outages))


def _together(outages: Sequence[Outage]) -> tuple[Outage, ...]:
    """Outages of several directions that overlap, as one each, from the first to fail to the last to pass again."""
    merged: list[Outage] = []
    for item in sorted(outages, key=lambda item: item.began):
        last = merged[-1] if merged else None
        if last is None or (last.ended is not None and item.began > last.ended):
            merged.append(item)
            continue
        ended = None if last.ended is None or item.ended is None else max(last.ended, item.ended)
        merged[-1] = replace(last, ended=ended, seen=max(last.seen, item.seen), fault=last.fault or item.fault)
    return tuple(merged)


def allowance_s(target: float) -> float:
    """How many seconds of outage in 30 days `target` leaves, such as 0.999."""
    return MONTH_S * (1 - target)
