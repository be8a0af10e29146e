"""What processes print while links are broken, with the time of each line, and when traffic passed by that."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

GIVEN_UP_S = 75.0
"""When to give up waiting."""


@dataclass
class Heard:
    """What a process printed, line by line, with the time at which each line came."""

    process: subprocess.Popen[str]
    lines: list[tuple[float, str]] = field(default_factory=list)

    @classmethod
    def of(cls, *argv: str) -> Heard:
        """Start it and listen."""
        heard = cls(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True))
        threading.Thread(target=heard._listen, daemon=True).start()
        return heard

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append((time.monotonic(), line))

    def documents(self, since: float = 0.0) -> Iterator[tuple[float, dict[str, Any]]]:
        """The JSON lines that came after a time."""
        return ((at, json.loads(line)) for at, line in list(self.lines) if at >= since)

    def answered(self, since: float) -> list[float]:
        """When the questions were asked that got an answer, from a time on."""
        return sorted(asked for _, line in list(self.lines)[-4000:] if (asked := float(line)) >= since)

    def end(self) -> None:
        """Ask it to end, and wait for that."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)
        time.sleep(0.1)


def passes_again(times: Sequence[float], now: float, gap_s: float) -> float | None:
    """Since when questions are answered without a gap; None while they are not (pure)."""
    if not times or now - times[-1] > gap_s:
        return None
    begin = times[-1]
    for asked in reversed(times):
        if begin - asked > gap_s:
            break
        begin = asked
    return begin


def first_gap(times: Sequence[float], gap_s: float) -> float | None:
    """When the first silence began that was longer than that (pure)."""
    return next((one for one, other in itertools.pairwise(times) if other - one > gap_s), None)


def until(what: str, holds: Callable[[], Any], within_s: float = GIVEN_UP_S) -> None:
    """Wait for a condition."""
    end = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {within_s:.0f} s")
        time.sleep(0.05)
