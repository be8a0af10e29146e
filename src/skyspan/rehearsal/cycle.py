"""The cycle of a rehearsal: the real command line, verb after verb, each judged by what it says afterwards."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any

from skyspan.contracts.transport import Command, Completed, Spawner, StopLadder, Stream
from skyspan.rehearsal.report import EventKind, Finding, RehearsalReport, StepReport, Verdict
from skyspan.rehearsal.snapshot import differences, take
from skyspan.rehearsal.trouble import LEFT_ALONE, Document, Ordeal, statuses
from skyspan.rehearsal.world import World

LADDER = StopLadder(first_s=120.0, second_s=60.0)
"""A cancelled step is given time to stop its tools: Terraform writes its state."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step: a verb, and the deployment's status that it must end in. `settled`: it changes no stage."""

    name: str
    title: str
    verb: tuple[str, ...]
    status: str = ""
    settled: bool = False


CHECK = Step("recheck", "check its health again", ("check",))

STEPS = (
    Step("up", "bring it up", ("up", "--yes"), "deployed"),
    Step("again", "up again: nothing to do", ("up", "--yes"), "deployed", settled=True),
    Step("check", "check its health", ("check",)),
    Step("stop", "stop it", ("stop", "--yes"), "stopped"),
    Step("start", "start it", ("start", "--yes"), "deployed"),
    CHECK,
    Step("destroy", "destroy it", ("destroy", "--yes"), "destroyed"),
)
LAST, PROOF = "destroy", "proof"
"""The steps that are tried whatever happened before."""


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
        self._reports: list[StepReport] = []

    async def run(self, boot_s: float = 0.0) -> RehearsalReport:
        """All steps in order, then the proof; after a failure only the destruction is still tried."""
        began = monotonic()
        before = await take(self._world)
        links, outputs = None, None
        for step in STEPS:
            if step.name == LAST:
                await self._troubles()
            done = await self._do(step.name, step.title, partial(self._perform, step))
            if step.settled and done.verdict is not Verdict.SKIPPED:
                links, outputs = await self._told("links", "links"), await self._told("outputs", "stages")
        leftovers: list[str] = []
        await self._do(PROOF, "prove that nothing is left", partial(self._prove, before, leftovers))
        took = boot_s + monotonic() - began
        return RehearsalReport(
            self._name, tuple(self._reports), tuple(leftovers), boot_s, took, tuple(links or ()), outputs or {}
        )

    async def _troubles(self) -> None:
        """What is declared to go wrong, one after the other, each in steps of its own; but for what would befall a
        stage that its own `if` leaves out."""
        left_out = {name for done in self._reports for name, one in (done.stages or {}).items() if one == "skipped"}
        for trouble in self._world.rehearsal.trouble:
            if trouble.stage in left_out:
                self._tell(EventKind.WORLD, "", f"no {trouble.name}, as the stage {trouble.stage} is left out")
                continue
            ordeal = Ordeal(trouble, self._world, self._ask)
            name, what = trouble.name, trouble.fault or f"{trouble.run} (on {trouble.host})"
            await self._do(name, f"let go wrong: {what}", ordeal.happen)
            await self._do(f"{name}/check", f"check tells of {trouble.named}", ordeal.told)
            await self._do(f"{name}/up", "up repairs it, and leaves alone what is well", ordeal.repaired)
            await self._do(f"{name}/recheck", CHECK.title, partial(self._perform, CHECK))

    async def _told(self, verb: str, key: str) -> Any:
        """What a verb that only asks says of the deployment."""
        return _document((await self._skyspan(verb, self._name, quiet=True)).text()).get(key)

    async def _ask(self, *verb: str) -> tuple[Completed, Document]:
        """Run a verb on the deployment: how it ended, and what it says of its run."""
        completed = await self._skyspan(*verb, "-f", self._file)
        return completed, _document(completed.text())

    def _say(self, kind: EventKind, text: str) -> None:
        self._tell(kind, self._step, text)

    async def _do(self, name: str, title: str, work: Callable[[], Awaitable[Finding]]) -> StepReport:
        """Do one step and report it, unless an earlier one failed."""
        if name not in (LAST, PROOF) and any(report.verdict is Verdict.FAILED for report in self._reports):
            self._reports.append(StepReport(name, title, Verdict.SKIPPED, 0.0, "an earlier step failed"))
            return self._reports[-1]
        self._step = name
        self._say(EventKind.STEP, title)
        start = monotonic()
        found = await work()
        verdict = Verdict.FAILED if found.fault else Verdict.PASSED
        self._say(EventKind.VERDICT, f"{verdict.value}: {found.fault}" if found.fault else verdict.value)
        took = monotonic() - start
        self._reports.append(
            StepReport(name, title, verdict, took, found.fault, found.exit_code, found.stages, found.figures)
        )
        return self._reports[-1]

    async def _perform(self, step: Step) -> Finding:
        completed, _ = await self._ask(*step.verb)
        status = _document((await self._skyspan("status", self._name, quiet=True)).text())
        fault = judge(step, completed.exit_code, status)
        if fault and not completed.ok:
            fault += f"\n{completed.last_words()}"
        return Finding(fault, completed.exit_code, statuses(status))

    async def _prove(self, before: Mapping[str, frozenset[str]], leftovers: list[str]) -> Finding:
        """Hold the world against what it was `before`; what is left, or missing, goes to `leftovers`."""
        leftovers += differences(before, await take(self._world))
        for line in leftovers:
            self._say(EventKind.LINE, line)
        return Finding(f"{len(leftovers)} differences to the world before" if leftovers else "")

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
        moved = [f"{one['name']} ({one['status']})" for one in _stages(status) if one["status"] not in LEFT_ALONE]
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
