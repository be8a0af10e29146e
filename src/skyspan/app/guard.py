"""Keeps one watched link up: probes it, has it diagnosed and repaired, measures it, and tells what happens."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from skyspan.app.documents import Document, timestamp
from skyspan.contracts.context import Clock, ReadContext
from skyspan.contracts.watch import Finding, Passage, Repair, SupportsWatch
from skyspan.engine.meter import (
    Direction,
    Meter,
    allowance_s,
    availability,
    longest_outage_s,
    measured,
    mended,
    named,
    outage_count,
    outages_of,
)
from skyspan.engine.supervise import (
    Evidence,
    Health,
    Turn,
    Watch,
    condemned,
    exhausted,
    next_repair,
    postponed,
    probed,
    repaired,
)
from skyspan.model.error import RefusedError, SkyspanError

PERIOD_S = 1.0
"""Between two probes of a link."""

TARGET = 0.999
"""The availability that the summary sets its measure beside."""

Tell = Callable[[Document], None]
"""Called with everything that happens, as a document with `at`, `link` and `what`."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A link that can be watched: its provider, its settings as they were applied, and a context that only reads.
    `needs` are the stages it goes over, also through others."""

    stage: str
    provider: SupportsWatch
    spec: Any
    ctx: ReadContext
    needs: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Options:
    """How to watch. `repair` is false for looking on; `for_s` ends it after that time; `period_s` is between probes."""

    stages: tuple[str, ...] = ()
    repair: bool = True
    for_s: float | None = None
    period_s: float = PERIOD_S


Take = Callable[[str, Repair, Callable[[], bool]], Awaitable[str | None]]
"""How a step is taken: see `Mender.take`."""


class Guard:
    """Watches over one link. Probing goes on while a diagnosis or a repair is made, so that its effect is seen at once.

    `below` are the guards of the links that this one goes over: while one of those is down, only that is repaired.
    """

    def __init__(self, clock: Clock, link: Watched, options: Options, tell: Tell, take: Take) -> None:
        self._clock, self.link, self._options, self._tell, self._take = clock, link, options, tell, take
        self.stage = link.stage
        self.below: tuple[Guard, ...] = ()
        self._state = Watch()
        self._meter = Meter()
        self._evidence: Evidence | None = None
        self._fault = ""
        self._told = ""
        self._work: asyncio.Task[None] | None = None

    @property
    def well(self) -> bool:
        """Whether nothing is known to be wrong."""
        return self._state.misses == 0

    async def run(self) -> None:
        """Probe for ever."""
        clock, last = self._clock, None
        try:
            while True:
                began = clock.monotonic()
                found = await self._probed()
                now = clock.monotonic()
                lasted = self._options.period_s if last is None else began - last
                self._meter = measured(self._meter, found, began, lasted, self._fault)
                last = began
                self._heard(found, now)
                await clock.sleep(max(0.0, self._options.period_s - (clock.monotonic() - began)))
        finally:
            if self._work is not None:
                self._work.cancel()
                await asyncio.gather(self._work, return_exceptions=True)

    async def _probed(self) -> Sequence[Passage]:
        """What a probe finds; one that fails itself says nothing of the link, and does not end the watch."""
        try:
            return await self.link.provider.probe(self.link.spec, self.link.ctx)
        except SkyspanError as error:
            self._trouble(error)
            known = self._state.found or (Passage(self.stage, self.stage, None),)
            return tuple(replace(passage, passed=None, reason=error.summary) for passage in known)

    def summary(self) -> Document:
        """What was measured, in seconds and shares."""
        meter = self._meter
        by_fault = {fault or "unknown": told for fault, told in mended(meter).items()}
        return {
            "health": self._state.health.value,
            "availability": round(availability(meter), 6),
            "watched_s": round(max(meter.watched.values(), default=0.0), 1),
            "outages": outage_count(meter),
            "longest_outage_s": round(longest_outage_s(meter), 1),
            "directions": [_direction(meter, way) for way in meter.watched],
            "repair_s": {fault: round(told.mean_s, 1) for fault, told in by_fault.items()},
            "faults": {
                fault: {
                    "outages": told.outages,
                    "mean_s": round(told.mean_s, 2),
                    "longest_s": round(told.longest_s, 2),
                }
                for fault, told in by_fault.items()
            },
            "target": TARGET,
            "allowed_s_in_30_days": round(allowance_s(TARGET), 1),
        }

    def _heard(self, found: Sequence[Passage], now: float) -> None:
        self._state, turn = probed(self._state, found, now)
        self._told_turn(turn)
        if self.well and self._state.health is Health.UP:
            self._evidence, self._fault, self._told = None, "", ""
        elif self._state.health is not Health.UNKNOWN and self._work is None:
            self._work = asyncio.create_task(self._act())

    async def _act(self) -> None:
        """Look for why, while more misses are waited for; then one repair after the other, each with its time to show,
        or the pause after all of them."""
        try:
            if self._evidence is None and self._clock.monotonic() >= self._state.not_before:
                self._evidence = await self._looked()
            if self._evidence is None:
                return
            evidence = self._evidence
            self._state, turn = condemned(self._state, evidence, self._clock.monotonic())
            self._told_turn(turn)
            if self._options.repair and self._state.health is Health.DOWN:
                await self._mend(evidence)
        except SkyspanError as error:
            self._trouble(error)
            self._state = postponed(self._state, self._clock.monotonic())
        finally:
            self._work = None

    async def _looked(self) -> Evidence | None:
        """Why nothing passes; None for a packet that was only lost. What cannot be found out is told once."""
        try:
            findings = await self.link.provider.diagnose(self.link.spec, self.link.ctx)
        except SkyspanError as error:
            if self._state.health is Health.UP:
                return None
            self._trouble(error)
            return Evidence()
        evidence = Evidence.of(findings)
        if self.well or (self._state.health is Health.UP and not evidence.gone):
            return None
        self._fault = findings[0].cause.value if findings else "unknown"
        self._meter = named(self._meter, self._fault)
        told = " ".join(f"{finding.cause} {finding.where}" for finding in findings)
        if told != self._told:
            for finding in findings:
                self._say("cause", **finding_document(finding))
        self._told = told
        return evidence

    async def _mend(self, evidence: Evidence) -> None:
        link, clock = self.link, self._clock
        steps = link.provider.repairs(link.spec, link.ctx)
        while (step := next_repair(self._state, steps, evidence, clock.monotonic())) is not None:
            worked = await self._taken(step) if all(guard.well for guard in self.below) else None
            if worked is None:
                # What it goes over comes first, or somebody else is at work: then all is looked at anew.
                self._state, self._evidence = postponed(self._state, clock.monotonic()), None
                return
            self._state = repaired(self._state, step, evidence, clock.monotonic(), worked=worked)
        before, self._state = self._state, exhausted(self._state, steps, clock.monotonic(), random.random())
        if self._state.rounds != before.rounds:
            self._evidence = None

    async def _taken(self, step: Repair) -> bool | None:
        """Take a step; whether it says that it worked, None when it was not tried at all."""
        began = self._clock.monotonic()
        self._say("repair", step=step.name, host=step.host)
        try:
            wrong = await self._take(self.stage, step, lambda: self._state.health is Health.DOWN)
        except RefusedError as refused:
            self._say("left alone", words=refused.summary, hint="somebody else is at work on the deployment")
            return None
        took = round(self._clock.monotonic() - began, 1)
        if wrong is None:
            self._say("left alone", words="it came back by itself")
            return None
        if wrong:
            self._say("repair failed", step=step.name, host=step.host, words=wrong, took_s=took)
        else:
            self._say("repaired", step=step.name, host=step.host, took_s=took)
        return not wrong

    def _trouble(self, error: SkyspanError) -> None:
        """Tell what cannot be done, once."""
        if error.summary != self._told:
            self._say("trouble", words=error.summary, hint=error.hint)
        self._told = error.summary

    def _told_turn(self, turn: Turn | None) -> None:
        if turn is None:
            return
        self._say(
            turn.health.value,
            before=turn.before.value,
            lasted_s=round(turn.lasted_s, 1),
            failing=[f"{item.source} -> {item.target}: {item.reason}" for item in turn.failing],
        )

    def _say(self, what: str, **more: Any) -> None:
        self._tell({"at": timestamp(self._clock.now()), "link": self.stage, "what": what, **more})


def _direction(meter: Meter, way: Direction) -> Document:
    """One direction of a link, as it was measured."""
    outages = outages_of(meter, way)
    return {
        "from": way[0],
        "to": way[1],
        "availability": round(availability(meter, way), 6),
        "watched_s": round(meter.watched[way], 1),
        "failed_s": round(meter.failed.get(way, 0.0), 1),
        "outages": len(outages),
        "longest_outage_s": round(longest_outage_s(meter, way), 1),
        "down_now": any(item.ended is None for item in outages),
    }


def finding_document(finding: Finding) -> dict[str, str]:
    """A finding as published."""
    return {
        "cause": finding.cause.value,
        "host": finding.where,
        "words": finding.words,
        "hint": finding.hint,
    }
