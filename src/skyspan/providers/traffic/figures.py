"""What a flow measured, in figures, and what they are held against: pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from skyspan.providers.traffic.spec import Thresholds

NO_COUNTS: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Spread:
    """Times in milliseconds. A tool that tells no percentiles leaves them None."""

    least: float
    average: float
    most: float
    p50: float | None = None
    p95: float | None = None

    def record(self) -> dict[str, float]:
        """As an output."""
        found = {"min": self.least, "avg": self.average, "p50": self.p50, "p95": self.p95, "max": self.most}
        return {name: round(value, 3) for name, value in found.items() if value is not None}


def spread(samples: Sequence[float]) -> Spread | None:
    """Of single times; None where there are none. Percentiles are those of the nearest rank."""
    if not samples:
        return None
    ordered = sorted(samples)

    def rank(share: float) -> float:
        return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]

    return Spread(ordered[0], sum(ordered) / len(ordered), ordered[-1], rank(0.5), rank(0.95))


def jitter(samples: Sequence[float]) -> float | None:
    """The mean difference between one time and the next; None where there are fewer than two."""
    steps = [abs(after - before) for before, after in itertools.pairwise(samples)]
    return sum(steps) / len(steps) if steps else None


@dataclass(frozen=True, slots=True)
class Figures:
    """One measurement. What its kind does not have is None: throughput in bit/s, loss as a ratio, times in ms.

    `failed` are the tool's words when it could measure nothing at all. `latency` is that of an answer, `connect` that
    of a TCP connection.
    """

    seconds: float | None = None
    sent: int | None = None
    received: int | None = None
    throughput: float | None = None
    loss: float | None = None
    jitter_ms: float | None = None
    latency: Spread | None = None
    connect: Spread | None = None
    retransmits: int | None = None
    statuses: Mapping[str, int] = field(default_factory=lambda: NO_COUNTS)
    errors: Mapping[str, int] = field(default_factory=lambda: NO_COUNTS)
    failed: str = ""

    def record(self) -> dict[str, Any]:
        """As outputs, only those there are."""
        found: dict[str, Any] = {
            "seconds": None if self.seconds is None else round(self.seconds, 3),
            "sent": self.sent,
            "received": self.received,
            "throughput": None if self.throughput is None else round(self.throughput),
            "loss": None if self.loss is None else round(self.loss, 6),
            "jitter_ms": None if self.jitter_ms is None else round(self.jitter_ms, 3),
            "latency_ms": None if self.latency is None else self.latency.record(),
            "connect_ms": None if self.connect is None else self.connect.record(),
            "retransmits": self.retransmits,
            "statuses": dict(self.statuses) or None,
            "errors": dict(self.errors) or None,
        }
        return {name: value for name, value in found.items() if value is not None}

    def words(self) -> str:
        """The figures in one line for people."""
        parts = []
        if self.throughput is not None:
            parts.append(rate_words(self.throughput))
        if self.latency is not None:
            p95 = f", p95 {self.latency.p95:.2f}" if self.latency.p95 is not None else ""
            parts.append(f"{self.latency.average:.2f} ms{p95}")
        if self.jitter_ms is not None:
            parts.append(f"jitter {self.jitter_ms:.3f} ms")
        if self.loss is not None:
            parts.append(f"{self.loss:.2%} lost")
        if self.retransmits is not None:
            parts.append(f"{self.retransmits} sent again")
        return "; ".join(parts) or self.failed or "nothing measured"


def rate_words(bits: float) -> str:
    """Bits per second for people."""
    for unit, size in (("Gbit/s", 1e9), ("Mbit/s", 1e6), ("kbit/s", 1e3)):
        if bits >= size:
            return f"{bits / size:.2f} {unit}"
    return f"{bits:.0f} bit/s"


def breaches(figures: Figures, bounds: Thresholds) -> tuple[str, ...]:
    """What does not hold, each in words with the figure and its bound; empty when all does."""
    if figures.failed:
        return (figures.failed,)
    # Whoever allows that everything is lost does not ask for more.
    silent = _silence(figures) if bounds.max_loss != 1 else ""
    return (silent,) if silent else tuple(_breaches(figures, bounds))


def _silence(figures: Figures) -> str:
    """In words, that nothing at all passed; empty when something did."""
    passed = [value for value in (figures.received, figures.throughput) if value is not None]
    if any(passed):
        return ""
    why = ", ".join(f"{word} {count} times" for word, count in {**figures.errors, **_refusals(figures)}.items())
    return "nothing passed" + (f": {why}" if why else "")


def _refusals(figures: Figures) -> Mapping[str, int]:
    return {f"status {status}": count for status, count in figures.statuses.items()}


def _breaches(figures: Figures, bounds: Thresholds) -> Iterator[str]:
    low, high = bounds.min_throughput, bounds.max_loss
    if low is not None and (figures.throughput or 0) < low:
        yield f"throughput {rate_words(figures.throughput or 0)} is below {rate_words(low)}"
    if high is not None and (figures.loss is None or figures.loss > high):
        yield f"loss {_share(figures.loss)} is above {_share(high)}"
    again = bounds.max_retransmits
    if again is not None and (figures.retransmits is None or figures.retransmits > again):
        yield f"{figures.retransmits} segments sent again is above {again}"
    latency = figures.latency
    for name, value, bound in (
        ("jitter", figures.jitter_ms, bounds.max_jitter),
        ("latency", latency.average if latency else None, bounds.max_latency),
        ("latency p95", latency.p95 if latency else None, bounds.max_p95),
    ):
        # One answer alone has no jitter.
        alone = name == "jitter" and figures.received == 1
        if bound is not None and not alone and (value is None or value > bound * 1000):
            yield f"{name} {_ms(value)} is above {_ms(bound * 1000)}"


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value * 100:.4g} %"


def _ms(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g} ms"
