"""One link under test: breaks it as it is told, and measures how soon that is told and traffic passes again."""

from __future__ import annotations

import contextlib
import os
import random
import time
from dataclasses import dataclass
from typing import Any

from tests.chaos.links.fault import Fault
from tests.chaos.links.measuring import Heard, first_gap, passes_again, until
from tests.chaos.links.stand_ins import StandIns

CALM_S = 1.5
"""How long all must be well before the next fault."""

_LOST = ("Deleted 10.1.0.0/24", "Deleted 10.2.0.0/24")


@dataclass
class Trial:
    """The link with all that looks at it: its supervisor, who asks along its ways, the routes of its gateways."""

    world: StandIns
    supervisor: Heard
    ways: list[Heard]
    routes: list[Heard]
    sessions: dict[str, int]
    chance: random.Random
    gap_s: float

    def health(self) -> dict[str, str]:
        """What the supervisor last told of each link."""
        told = {}
        for _, item in self.supervisor.documents():
            if item.get("what") in ("up", "down", "degraded", "unknown"):
                told[item["link"]] = item["what"]
        return told

    def withdrawn(self, since: float) -> list[float]:
        """When a gateway lost the way to the other side's machines."""
        lines = (line for heard in self.routes for line in heard.lines)
        return sorted(at for at, line in lines if at >= since and line.startswith(_LOST))

    def passing(self) -> bool:
        """Whether traffic passes along every way."""
        now = time.monotonic()
        since = [passes_again(way.answered(now - 10), now, self.gap_s) for way in self.ways]
        return all(begin is not None and now - begin >= CALM_S for begin in since)

    def calm(self) -> bool:
        """Whether traffic passes along every way and the supervisor says so."""
        return self.passing() and all(health == "up" for health in self.health().values())

    def suffer(self, fault: Fault) -> dict[str, Any]:
        """Break, wait for the repair, tell."""
        began = time.monotonic()
        mends = fault.breaks(self.world, self.chance)
        mended = began
        if mends is not None and not fault.evaded:
            mends()
            mended = time.monotonic()
        try:
            until(f"{fault.name}: an outage", lambda: self._gap(began) is not None, 3 if fault.heals else 15)
        except TimeoutError:
            if not fault.heals:
                raise
            mended = time.monotonic()
        until(f"{fault.name}: repair", self.passing if fault.evaded else self.calm)
        # How long it takes to cut a way is known from the answers alone.
        hit = began if mends is None else self._gap(began) or began
        again = max(self._again(way, began) for way in self.ways)
        if mends is not None and fault.evaded:
            mends()
            until(f"{fault.name}: all as before", self.calm)
        return self._told(fault, began, hit) | {
            "repaired_s": round(max(0.0, again - (hit if fault.evaded else mended)), 2),
            "outage_s": round(again - hit, 2),
        }

    def _told(self, fault: Fault, began: float, hit: float) -> dict[str, Any]:
        """What is known of it apart from the traffic."""
        told = [(at, item) for at, item in self.supervisor.documents(began)]
        return {
            "fault": fault.name,
            "detected_s": next((round(at - hit, 2) for at, item in told if item.get("what") == "down"), None),
            "withdrawn_s": next((round(at - hit, 2) for at in self.withdrawn(began)), None),
            "bound_s": fault.bound_s,
            "causes": list(dict.fromkeys(item["cause"] for _, item in told if item.get("what") == "cause")),
            "named": list(fault.causes),
            "quiet": fault.quiet,
            "spared": fault.spared,
            "load": round(os.getloadavg()[0] / (os.cpu_count() or 1), 1),
            "told": [
                {"t": round(at - began, 2), **{k: v for k, v in item.items() if k not in ("at", "hint")}}
                for at, item in told
            ],
            "sessions": self._settled(),
        }

    def _again(self, way: Heard, began: float) -> float:
        """Since when it is answered, now that it is."""
        times = way.answered(began)
        since = passes_again(times, times[-1], self.gap_s)
        assert since is not None
        return since

    def _settled(self) -> dict[str, int]:
        """The sessions and daemons, when they are as before, or after some seconds in which they may come to be."""
        with contextlib.suppress(TimeoutError):
            until("one session each", lambda: self.world.sessions() == self.sessions, 8)
        return self.world.sessions()

    def _gap(self, began: float) -> float | None:
        now = time.monotonic()
        gaps = (first_gap([began, *way.answered(began), now], self.gap_s) for way in self.ways)
        return next((gap for gap in gaps if gap is not None), None)
