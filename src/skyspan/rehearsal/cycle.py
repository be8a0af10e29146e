"""The cycle of a rehearsal: the real command line, verb after verb, each judged by what it says afterwards."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

from skyspan.contracts.transport import Command, Completed, Spawner, StopLadder, Stream
from skyspan.rehearsal.report import EventKind, RehearsalReport, StepReport, Verdict
from skyspan.rehearsal.snapshot import differences, take
from skyspan.rehearsal.world import World

LADDER = StopLadder(first_s=120.0, second_s=60.0)
"""A cancelled step is given time to stop its tools: Terraform writes its state."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step: a verb, and the deployment's status that it must end in. `settled`: every stage must be unchanged."""

    name: str
    title: str
    verb: tuple[str, ...]
    status: str = ""
    settled: bool = False


STEPS = (
    Step("up", "bring it up", ("up", "--yes"), "deployed"),
    Step("again", "up again: nothing to do", ("up", "--yes"), "deployed", settled=True),
    Step("check", "check its health", ("check",)),
    Step("stop", "stop it", ("stop", "--yes"), "stopped"),
    Step("start", "start it", ("start", "--yes"), "deployed"),
    Step("recheck", "check its health again", ("check",)),
    Step("destroy", "destroy it", ("destroy", "--yes"), "destroyed"),
)
LAST = "destroy"
"""The step that is tried whatever happened before."""


class Cycle:
    """One rehearsal of a composition inside a running world.

    `file` is its path, `name` the deployment's; `tell` gets each event's kind, its step and its text.
    """

    def __init__(
        self, world: World, spawner: Spawner, file: str, name: str, tell: Callable[[EventKind, str, str], None]
    ) -> None:
        self._world = world
        self._spawner = spawner
        self._file = file
        self._name = name
        self._tell = tell
        self._step = ""

    async def run(self, boot_s: float = 0.0) -> RehearsalReport:
        """All steps in order, then the proof; after a failure only the destruction is still tried."""
        began = monotonic()
        before = await take(self._world)
        reports: list[StepReport] = []
        links, outputs = None, None
        for step in STEPS:
            if step.name != LAST and any(report.verdict is Verdict.FAILED for report in reports):
                reports.append(StepReport(step.name, step.title, Verdict.SKIPPED, 0.0, "an earlier step failed"))
                continue
            reports.append(await self._perform(step))
            if step.settled:
                links, outputs = await self._told("links", "links"), await self._told("outputs", "stages")
        proof, leftovers = await self._prove(before)
        took = boot_s + monotonic() - began
        return RehearsalReport(
            self._name, (*reports, proof), leftovers, boot_s, took, tuple(links or ()), outputs or {}
        )

    async def _told(self, verb: str, key: str) -> Any:
        """What a verb that only asks says of the deployment."""
        return _document((await self._skyspan(verb, self._name, quiet=True)).text()).get(key)

    def _say(self, kind: EventKind, text: str) -> None:
        self._tell(kind, self._step, text)

    async def _perform(self, step: Step) -> StepReport:
        self._begin(step.name, step.title)
        start = monotonic()
        completed = await self._skyspan(*step.verb, "-f", self._file)
        status = _document((await self._skyspan("status", self._name, quiet=True)).text())
        fault = judge(step, completed.exit_code, status)
        if fault and not completed.ok:
            fault += f"\n{completed.last_words()}"
        return self._end(
            step.name,
            step.title,
            start,
            fault,
            completed.exit_code,
            {one["name"]: one["status"] for one in _stages(status)},
        )

    async def _prove(self, before: Mapping[str, frozenset[str]]) -> tuple[StepReport, tuple[str, ...]]:
        title = "prove that nothing is left"
        self._begin("proof", title)
        start = monotonic()
        leftovers = differences(before, await take(self._world))
        for line in leftovers:
            self._say(EventKind.LINE, line)
        fault = f"{len(leftovers)} differences to the world before" if leftovers else ""
        return self._end("proof", title, start, fault), leftovers

    def _begin(self, name: str, title: str) -> None:
        self._step = name
        self._say(EventKind.STEP, title)

    def _end(
        self,
        name: str,
        title: str,
        start: float,
        fault: str,
        exit_code: int | None = None,
        stages: Mapping[str, str] | None = None,
    ) -> StepReport:
        verdict = Verdict.FAILED if fault else Verdict.PASSED
        self._say(EventKind.VERDICT, f"{verdict.value}: {fault}" if fault else verdict.value)
        return StepReport(name, title, verdict, monotonic() - start, fault, exit_code, stages)

    async def _skyspan(self, *words: str, quiet: bool = False) -> Completed:
        """Run the command line; its progress (standard error) is told line by line."""
        lines = _Lines(lambda text: self._say(EventKind.LINE, text))

        def hear(stream: Stream, data: bytes) -> None:
            if stream is Stream.ERR and not quiet:
                lines.feed(data)

        argv = (sys.executable, "-m", "skyspan", "--json", *words)
        process = await self._spawner.start(Command(argv, env=self._world.environment, ladder=LADDER), hear)
        try:
            return await process.wait()
        except BaseException:
            await process.stop()
            raise
        finally:
            lines.finish()


def judge(step: Step, exit_code: int, status: Mapping[str, Any]) -> str:
    """What is wrong after a step, or an empty text (pure). `status` is the document of `skyspan --json status`."""
    if exit_code != 0:
        return f"`skyspan {' '.join(step.verb)}` ended with {exit_code}"
    if step.status and status.get("status") != step.status:
        faults = [f"{one['name']}: {one['reason']}" for one in _stages(status) if one.get("reason")]
        return f"the deployment is {status.get('status', 'unknown')}, not {step.status}" + "".join(
            f"\n{fault}" for fault in faults
        )
    if step.settled:
        moved = [f"{one['name']} ({one['status']})" for one in _stages(status) if one["status"] != "unchanged"]
        if moved:
            return f"not settled: {', '.join(moved)}"
    health = status.get("health", "")
    if step.verb == ("check",) and health not in ("healthy", "unknown", ""):
        return f"its health is {health}"
    return ""


def _stages(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(status.get("stages", ()))


def _document(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


class _Lines:
    """Puts pieces of output together to lines."""

    def __init__(self, take_line: Callable[[str], None]) -> None:
        self._take = take_line
        self._rest = b""

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(line.decode(errors="replace").rstrip("\r"))

    def finish(self) -> None:
        if self._rest:
            self.feed(b"\n")
