"""Watching over a deployment's links: probes every second, says what changes, repairs what is down, measures it all."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skyspan.app import queries
from skyspan.app.contexts import ReadPlaces, tool_finder
from skyspan.app.documents import Document, timestamp
from skyspan.app.folders import work_folder
from skyspan.app.recovery import run_request
from skyspan.app.runs import Request, Watcher
from skyspan.app.session import Session
from skyspan.attempts.host_record import restored_hosts
from skyspan.contracts.context import ReadContext
from skyspan.contracts.store import StageRecord
from skyspan.contracts.transport import Stream
from skyspan.contracts.watch import Finding, Passage, Repair, SupportsWatch
from skyspan.engine.meter import Meter, allowance_s, availability, longest_outage_s, measured, repair_times_s
from skyspan.engine.supervise import Health, Turn, Watch, exhausted, next_repair, probed, repaired
from skyspan.model.error import NotFoundError, RefusedError, SkyspanError
from skyspan.model.lifecycle import RunStatus, Verb
from skyspan.model.secret import Secret
from skyspan.planning.shape import build_spec
from skyspan.providers.registry import Registry
from skyspan.transports.dialler import HostDialler
from skyspan.transports.local import LocalTransport
from skyspan.transports.ssh_connect import SshSettings

PERIOD_S = 1.0
"""Between two probes of a link."""

TARGET = 0.999
"""The availability that the summary sets its measure beside."""

Tell = Callable[[Document], None]
"""Called with everything that happens, as a document with `at`, `link` and `what`."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A link that can be watched: its provider, its settings as they were applied, and a context that only reads."""

    stage: str
    provider: SupportsWatch
    spec: Any
    ctx: ReadContext


@dataclass(frozen=True, slots=True)
class Options:
    """How to watch. `repair` is false for looking on; `for_s` ends it after that time; `period_s` is between probes."""

    stages: tuple[str, ...] = ()
    repair: bool = True
    for_s: float | None = None
    period_s: float = PERIOD_S


@asynccontextmanager
async def watched_links(session: Session, name: str, stages: Sequence[str] = ()) -> AsyncIterator[tuple[Watched, ...]]:
    """The links of a deployment that stand. Raises NotFoundError when there are none, or not those."""
    deployment = await queries.find_deployment(session, name)
    records = await session.store.stage_records(deployment.address)
    settings = session.settings
    local = LocalTransport(settings.child_env)
    dialler = HostDialler(local, SshSettings(settings.known_hosts, settings.identities, settings.ssh_agent))
    registry = Registry()
    try:
        links = [
            Watched(record.address.name, provider, spec, _context(session, dialler, record))
            for record in records
            if record.present and not record.stopped
            for provider, spec in _watchable(registry, record)
        ]
        known = [link.stage for link in links]
        for stage in stages:
            if stage not in known:
                raise NotFoundError(
                    f"{name} has no link {stage!r} that stands", hint=f"its links: {', '.join(known) or 'none'}"
                )
        if not links:
            raise NotFoundError(f"{name} has no link that stands", hint=f"skyspan status {name}")
        yield tuple(link for link in links if not stages or link.stage in stages)
    finally:
        await dialler.close()


async def diagnose(session: Session, name: str, stages: Sequence[str] = ()) -> Mapping[str, tuple[Finding, ...]]:
    """Why each link does not carry traffic as it should; nothing for one that is well."""
    async with watched_links(session, name, stages) as links:
        found = await asyncio.gather(*(link.provider.diagnose(link.spec, link.ctx) for link in links))
    return {link.stage: findings for link, findings in zip(links, found, strict=True)}


async def watch(session: Session, name: str, options: Options, tell: Tell, over: asyncio.Event) -> Document:
    """Watch until `over` is set or `for_s` has passed; what was measured until then."""
    async with watched_links(session, name, options.stages) as links:
        guards = [Guard(session, name, link, options, tell) for link in links]
        tasks = [asyncio.create_task(guard.run()) for guard in guards]
        asked = asyncio.create_task(over.wait())
        try:
            await asyncio.wait([asked, *tasks], timeout=options.for_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (asked, *tasks):
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result
    return {"deployment": name, "links": {guard.stage: guard.summary() for guard in guards}}


class Guard:
    """Watches over one link. Probing goes on while a repair is made, so that its effect is seen at once."""

    def __init__(self, session: Session, name: str, link: Watched, options: Options, tell: Tell) -> None:
        self._session, self._name, self._link, self._options, self._tell = session, name, link, options, tell
        self.stage = link.stage
        self._state = Watch()
        self._meter = Meter()
        self._suspects: tuple[str, ...] = ()
        self._fault = ""
        self._work: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Probe for ever."""
        clock, last = self._session.clock, None
        try:
            while True:
                began = clock.monotonic()
                found = await self._link.provider.probe(self._link.spec, self._link.ctx)
                now = clock.monotonic()
                self._meter = measured(
                    self._meter, found, began, self._options.period_s if last is None else began - last, self._fault
                )
                last = began
                self._heard(found, now)
                await clock.sleep(max(0.0, self._options.period_s - (clock.monotonic() - began)))
        finally:
            if self._work is not None:
                self._work.cancel()
                await asyncio.gather(self._work, return_exceptions=True)

    def summary(self) -> Document:
        """What was measured, in seconds and shares."""
        meter = self._meter
        return {
            "health": self._state.health.value,
            "availability": round(availability(meter), 6),
            "watched_s": round(max(meter.watched.values(), default=0.0), 1),
            "outages": len(meter.outages),
            "longest_outage_s": round(longest_outage_s(meter), 1),
            "repair_s": {fault or "unknown": round(took, 1) for fault, took in repair_times_s(meter).items()},
            "target": TARGET,
            "allowed_s_in_30_days": round(allowance_s(TARGET), 1),
        }

    def _heard(self, found: Sequence[Passage], now: float) -> None:
        self._state, turn = probed(self._state, found, now)
        if turn is not None:
            self._told_turn(turn)
        if turn is not None and turn.health is Health.UP:
            self._suspects, self._fault = (), ""
        if self._state.health is Health.DOWN and self._work is None:
            self._work = asyncio.create_task(self._act())

    async def _act(self) -> None:
        """One diagnosis, or one repair, or the pause after all of them."""
        try:
            link, clock = self._link, self._session.clock
            if not self._fault:
                findings = await link.provider.diagnose(link.spec, link.ctx)
                self._suspects = tuple(dict.fromkeys(finding.where for finding in findings))
                self._fault = findings[0].cause.value if findings else "unknown"
                for finding in findings:
                    self._say("cause", **_finding(finding))
            if not self._options.repair:
                return
            steps = link.provider.repairs(link.spec, link.ctx)
            step = next_repair(self._state, steps, self._suspects, clock.monotonic())
            if step is None:
                self._state = exhausted(self._state, steps, clock.monotonic(), random.random())
                return
            await self._take(step)
            self._state = repaired(self._state, step, clock.monotonic())
        except SkyspanError as error:
            self._say("trouble", words=error.summary, hint=error.hint)
        finally:
            self._work = None

    async def _take(self, step: Repair) -> None:
        """Take a step as a run of its own, under the deployment's lease."""
        began = self._session.clock.monotonic()
        request = Request(
            Verb.REPAIR,
            self._session.address(self._name),
            chosen=frozenset({self.stage}),
            repairs={self.stage: step},
        )
        self._say("repair", step=step.name, host=step.host)
        try:
            result = await run_request(self._session, request, Watcher())
        except RefusedError as refused:
            self._say("left alone", words=refused.summary, hint="somebody else is at work on the deployment")
            return
        ended = result.ended
        took = round(self._session.clock.monotonic() - began, 1)
        if ended.status is RunStatus.SUCCEEDED:
            self._say("repaired", step=step.name, host=step.host, took_s=took)
        else:
            self._say("repair failed", step=step.name, host=step.host, words=ended.reason, took_s=took)

    def _told_turn(self, turn: Turn) -> None:
        self._say(
            turn.health.value,
            before=turn.before.value,
            lasted_s=round(turn.lasted_s, 1),
            failing=[f"{item.source} -> {item.target}: {item.reason}" for item in turn.failing],
        )

    def _say(self, what: str, **more: Any) -> None:
        self._tell({"at": timestamp(self._session.clock.now()), "link": self.stage, "what": what, **more})


def _finding(finding: Finding) -> dict[str, str]:
    return {
        "cause": finding.cause.value,
        "host": finding.where,
        "words": finding.words,
        "hint": finding.hint,
    }


def findings_document(found: Mapping[str, tuple[Finding, ...]]) -> Document:
    """A diagnosis as published."""
    return {stage: [_finding(finding) for finding in findings] for stage, findings in found.items()}


class _Unheard:
    """What is looked at so often is not logged; implements `contracts.context.Reporter`."""

    def line(self, text: str, stream: Stream = Stream.OUT) -> None:
        """Nothing."""

    def output(self, stream: Stream, data: bytes) -> None:
        """Nothing."""

    def progress(self, address: str, action: str, state: str, detail: str = "") -> None:
        """Nothing."""

    def conceal(self, secret: Secret) -> None:
        """Nothing is shown anyway."""


def _watchable(registry: Registry, record: StageRecord) -> Iterator[tuple[SupportsWatch, Any]]:
    provider = registry.get(record.uses)
    if isinstance(provider, SupportsWatch):
        yield provider, build_spec(record.address.name, provider.spec, record.spec)


def _context(session: Session, dialler: HostDialler, record: StageRecord) -> ReadContext:
    hosts = restored_hosts(record.hosts)
    return ReadContext(
        address=record.address,
        folder=Path(record.folder or "/"),
        work=work_folder(session, record.address.deployment.name) / record.address.name,
        hosts=hosts,
        places=ReadPlaces(dialler.for_hosts(hosts)),
        report=_Unheard(),
        tools=tool_finder(session),
        clock=session.clock,
        kept=session.store.kept(record.address, 0),
        rehearsal=session.settings.rehearsal,
    )
