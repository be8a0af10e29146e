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
    while it lasts; `fault` is what is known to have caused it, empty when nothing is."""

    direction: Direction
    began: float
    ended: float | None = None
    fault: str = ""


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
            outages.append(Outage(direction, now, fault=fault))
    elif open_at is not None:
        outages[open_at] = replace(outages[open_at], ended=now)
    return Meter(watched, failed, tuple(outages))


def availability(meter: Meter) -> float:
    """The share of the watched time in which traffic passed, of the worst direction; 1.0 before any was watched."""
    shares = (1 - meter.failed.get(way, 0.0) / watched for way, watched in meter.watched.items() if watched)
    return min(shares, default=1.0)


def longest_outage_s(meter: Meter) -> float:
    """How long the longest outage that is over took; 0.0 when there was none."""
    return max((item.ended - item.began for item in meter.outages if item.ended is not None), default=0.0)


def repair_times_s(meter: Meter) -> Mapping[str, float]:
    """The mean time to repair by what caused the outage (MTTR), of those that are over."""
    times: dict[str, list[float]] = {}
    for item in meter.outages:
        if item.ended is not None:
            times.setdefault(item.fault, []).append(item.ended - item.began)
    return {fault: sum(took) / len(took) for fault, took in times.items()}


def allowance_s(target: float) -> float:
    """How many seconds of outage in 30 days `target` leaves, such as 0.999."""
    return MONTH_S * (1 - target)
