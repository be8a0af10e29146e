"""Watching over a deployment's links: probes every second, says what changes, repairs what is down, measures it all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from skyspan.app import queries
from skyspan.app.contexts import ReadPlaces, stage_forwarder, tool_finder
from skyspan.app.documents import Document, timestamp
from skyspan.app.folders import work_folder
from skyspan.app.guard import TARGET, Guard, Options, Tell, Watched, finding_document
from skyspan.app.recovery import run_request
from skyspan.app.runs import Request, Watcher
from skyspan.app.session import Session
from skyspan.attempts.host_record import restored_hosts
from skyspan.contracts.context import ReadContext
from skyspan.contracts.store import StageRecord
from skyspan.contracts.transport import Stream
from skyspan.contracts.watch import Finding, Repair, SupportsWatch
from skyspan.engine.meter import allowance_s
from skyspan.model.error import NotFoundError
from skyspan.model.lifecycle import RunStatus, Verb
from skyspan.model.secret import Secret
from skyspan.planning.shape import build_spec
from skyspan.providers.registry import Registry
from skyspan.transports.dialler import HostDialler
from skyspan.transports.local import LocalTransport
from skyspan.transports.ssh_connect import SshSettings


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
            Watched(record.address.name, provider, spec, _context(session, dialler, record), _needed(record, records))
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
    clock = session.clock
    async with watched_links(session, name, options.stages) as links:
        mender = Mender(session, name)
        guards = [Guard(clock, link, options, tell, mender.take) for link in links]
        for guard in guards:
            guard.below = tuple(one for one in guards if one.stage in guard.link.needs)
        began_at, began = clock.now(), clock.monotonic()
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
    return {
        "deployment": name,
        "began_at": timestamp(began_at),
        "watched_s": round(clock.monotonic() - began, 1),
        "period_s": options.period_s,
        "repairing": options.repair,
        "target": TARGET,
        "allowed_s_in_30_days": round(allowance_s(TARGET), 1),
        "links": {guard.stage: guard.summary() for guard in guards},
    }


class Mender:
    """Takes steps of repair as runs of their own, under the deployment's lease: one at a time for all of its links."""

    def __init__(self, session: Session, name: str) -> None:
        self._session, self._name = session, name
        self._lock = asyncio.Lock()

    async def take(self, stage: str, step: Repair, wanted: Callable[[], bool]) -> str | None:
        """Take a step, if it is still `wanted` when its turn comes. Empty when it was taken, what went wrong if it was
        not, None when it is not wanted any more. Raises RefusedError while somebody else is at work."""
        async with self._lock:
            if not wanted():
                return None
            address = self._session.address(self._name)
            request = Request(Verb.REPAIR, address, chosen=frozenset({stage}), repairs={stage: step})
            result = await run_request(self._session, request, Watcher())
        if result.ended.status is RunStatus.SUCCEEDED:
            return ""
        reasons = [row["reason"] for row in result.document["stages"] if row["name"] == stage]
        return next(filter(None, (*reasons, result.ended.reason)), result.ended.status.value)


def findings_document(found: Mapping[str, tuple[Finding, ...]]) -> Document:
    """A diagnosis as published."""
    return {stage: [finding_document(finding) for finding in findings] for stage, findings in found.items()}


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


def _needed(record: StageRecord, records: Sequence[StageRecord]) -> frozenset[str]:
    known = {one.address.name: one.needs for one in records}
    found: set[str] = set()
    todo = list(record.needs)
    while todo:
        stage = todo.pop()
        if stage not in found:
            found.add(stage)
            todo += known.get(stage, ())
    return frozenset(found)


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
        forwarder=stage_forwarder(session, record.address, hosts),
    )
