"""How one watched link is guarded: probed on and on, diagnosed early, repaired one step at a time, measured, told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from skyspan.app.documents import Document
from skyspan.app.guard import Guard, Options, Watched
from skyspan.contracts.context import ReadContext, StageContext
from skyspan.contracts.watch import Cause, Finding, Passage, Repair
from skyspan.model.error import HostKeyError, NotReadyError, RefusedError, SkyspanError
from skyspan.testing.provider_world import SteppingClock

STEPS = (Repair("reapply", "a"), Repair("reapply", "b"), Repair("restart", "a"), Repair("restart", "b"))
GONE = (Finding(Cause.DAEMON_DOWN, "b", "it does not run"),)
CUT = (Finding(Cause.UNREACHABLE, "a", "nothing arrives"),)


@dataclass
class Link:
    """A link that passes traffic unless it is `broken`; a probe of one that is takes its second, as a ping does."""

    clock: SteppingClock
    findings: tuple[Finding, ...] | NotReadyError = ()
    broken: bool = False
    trouble: SkyspanError | None = None
    asked: list[str] = field(default_factory=list)

    async def probe(self, spec: Any, ctx: ReadContext) -> tuple[Passage, ...]:
        self.asked.append("probe")
        if self.trouble is not None:
            raise self.trouble
        if self.broken:
            await self.clock.sleep(1.0)
        return Passage("a", "b", not self.broken), Passage("b", "a", not self.broken)

    async def diagnose(self, spec: Any, ctx: ReadContext) -> tuple[Finding, ...]:
        self.asked.append("diagnose")
        if isinstance(self.findings, NotReadyError):
            raise self.findings
        return self.findings

    def repairs(self, spec: Any, ctx: ReadContext) -> tuple[Repair, ...]:
        return STEPS

    async def repair(self, spec: Any, step: Repair, ctx: StageContext) -> None:
        raise AssertionError("a guard has its repairs made by somebody else")


@dataclass
class Scene:
    """A guard over a link, with everything that it told and had done. `mends` says whether a step helps, `refusals`
    how often somebody else is at work."""

    link: Link
    clock: SteppingClock
    mends: Callable[[Repair], bool] = lambda step: True
    refusals: int = 0
    told: list[Document] = field(default_factory=list)
    taken: list[Repair] = field(default_factory=list)

    def guard(self, *, repair: bool = True) -> Guard:
        watched = Watched("link", self.link, None, cast(ReadContext, None))
        return Guard(self.clock, watched, Options(repair=repair), self.told.append, self.take)

    async def take(self, stage: str, step: Repair, wanted: Callable[[], bool]) -> str | None:
        await self.clock.sleep(0.1)
        if self.refusals:
            self.refusals -= 1
            raise RefusedError("an up is at work", hint="wait for it")
        if not wanted():
            return None
        self.taken.append(step)
        if self.mends(step):
            self.link.broken = False
            return ""
        return "no such interface"

    def what(self) -> list[str]:
        return [item["what"] for item in self.told]


def scene(findings: tuple[Finding, ...] | NotReadyError = CUT, **settings: Any) -> Scene:
    clock = SteppingClock()
    return Scene(Link(clock, findings), clock, **settings)


async def watched(guard: Guard, holds: Callable[[], bool]) -> None:
    """Let the guard watch until something holds."""
    task = asyncio.create_task(guard.run())
    try:
        async with asyncio.timeout(10):
            while not holds():
                await asyncio.sleep(0)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def broken(it: Scene, guard: Guard, holds: Callable[[], bool]) -> None:
    """Watch a link that is well, break it, and watch on."""
    await watched(guard, lambda: it.what() == ["up"])
    it.link.broken = True
    await watched(guard, holds)


async def test_what_is_gone_is_mended_at_the_first_miss() -> None:
    it = scene(GONE)
    await broken(it, it.guard(), lambda: it.what().count("up") == 2)
    assert it.what() == ["up", "cause", "down", "repair", "repaired", "up"]
    assert it.taken == [Repair("reapply", "b")]
    assert it.told[1]["cause"] == "daemon-down"


async def test_a_packet_that_is_lost_is_nothing_to_tell() -> None:
    it = scene(CUT)
    guard = it.guard()
    await watched(guard, lambda: it.what() == ["up"])
    it.link.broken, asked = True, it.link.asked.count("probe")
    await watched(guard, lambda: it.link.asked.count("probe") > asked)
    it.link.broken = False
    await watched(guard, lambda: it.link.asked.count("probe") > asked + 5)
    assert it.what() == ["up"]


async def test_without_such_a_word_it_takes_three_misses() -> None:
    it = scene(CUT)
    await broken(it, it.guard(), lambda: it.what().count("up") == 2)
    assert it.what() == ["up", "degraded", "cause", "down", "repair", "repaired", "up"]
    assert it.told[3]["lasted_s"] >= 0.9, "the cause was known before, and was no proof"


async def test_who_only_looks_on_repairs_nothing_and_measures_all_the_same() -> None:
    it = scene(GONE)
    guard = it.guard(repair=False)
    await broken(it, guard, lambda: "down" in it.what() and it.link.asked.count("probe") > 12)
    assert it.taken == []
    it.link.broken = False
    await watched(guard, lambda: it.what()[-1] == "up")
    told = guard.summary()
    assert told["outages"] == 1
    assert list(told["faults"]) == ["daemon-down"]
    assert told["faults"]["daemon-down"]["longest_s"] == told["longest_outage_s"] > 3
    assert {(way["from"], way["to"]) for way in told["directions"]} == {("a", "b"), ("b", "a")}
    assert 0 < told["availability"] < 1


async def test_a_round_that_is_paused_looks_for_why_when_it_is_over() -> None:
    it = scene(CUT, mends=lambda step: False)
    await broken(it, it.guard(), lambda: len(it.taken) > 12)
    looks, probes = it.link.asked.count("diagnose"), it.link.asked.count("probe")
    assert looks < probes / 2, f"{looks} diagnoses beside {probes} probes"


async def test_somebody_else_at_work_is_waited_for_and_nothing_counts_as_tried() -> None:
    it = scene(CUT, refusals=2)
    await broken(it, it.guard(), lambda: it.what().count("up") == 2)
    assert it.what().count("left alone") == 2
    assert it.taken == [Repair("reapply", "a")], "still the first step"


async def test_a_step_that_failed_is_told_and_followed_by_the_next() -> None:
    it = scene(CUT, mends=lambda step: step.host == "b")
    await broken(it, it.guard(), lambda: it.what().count("up") == 2)
    assert it.taken[:2] == list(STEPS[:2])
    failed = next(item for item in it.told if item["what"] == "repair failed")
    assert failed["words"] == "no such interface"


async def test_what_it_goes_over_is_mended_first() -> None:
    it, below = scene(CUT), scene(GONE)
    upper, lower = it.guard(), below.guard(repair=False)
    upper.below = (lower,)
    await watched(lower, lambda: below.what() == ["up"])
    below.link.broken = True
    await watched(lower, lambda: "down" in below.what())
    await broken(it, upper, lambda: it.link.asked.count("probe") > 20)
    assert "down" in it.what()
    assert it.taken == [], "a repair of it could not help"
    below.link.broken = False
    await watched(lower, lambda: below.what()[-1] == "up")
    await watched(upper, lambda: it.what()[-1] == "up")
    assert it.taken == [Repair("reapply", "a")]


async def test_a_diagnosis_that_fails_is_told_once_and_keeps_nobody_from_repairing() -> None:
    it = scene(NotReadyError("a gateway cannot be looked at"), mends=lambda step: step.name == "restart")
    await broken(it, it.guard(), lambda: it.what().count("up") == 2)
    assert it.what().count("trouble") == 1
    assert it.taken[-1].name == "restart"


async def test_a_probe_that_fails_itself_says_nothing_of_the_link_and_does_not_end_the_watch() -> None:
    it = scene(GONE)
    guard = it.guard()
    await watched(guard, lambda: it.what() == ["up"])
    it.link.trouble = HostKeyError("the host key of a is unknown")
    await watched(guard, lambda: it.link.asked.count("probe") > 12)
    assert it.what() == ["up", "trouble", "unknown"]
    it.link.trouble = None
    await watched(guard, lambda: it.what()[-1] == "up")
    assert it.taken == []
    assert guard.summary()["availability"] == 1.0


async def test_it_probes_every_second_whatever_else_goes_on() -> None:
    it = scene(CUT, mends=lambda step: False)
    await broken(it, it.guard(), lambda: len(it.taken) > 6)
    probes = it.link.asked.count("probe")
    lasted = it.clock.monotonic() - SteppingClock().monotonic()
    assert probes >= lasted / 2, f"{probes} probes in {lasted} s"
