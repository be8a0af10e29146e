"""Whole runs: the real engine, driver and performer over a fake world, a store in memory and virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skyspan.attempts import ContextRequest, Contexts, Knowledge, Means, StagePerformer, Wish
from skyspan.contracts.context import ReadContext, StageContext
from skyspan.contracts.store import DeploymentRecord, Lease, RunRecord, StageRecord, StageRunRecord
from skyspan.contracts.transport import Transport
from skyspan.drivers.local import LocalDriver
from skyspan.model.address import DeploymentAddress
from skyspan.model.change import Change
from skyspan.model.composition import Composition
from skyspan.model.event import Event, RunEnded, RunStarted, StagePlanned
from skyspan.model.lifecycle import Verb
from skyspan.model.secret import Secret
from skyspan.planning.draft import Checked
from skyspan.planning.outline import outline
from skyspan.planning.passes import check
from skyspan.planning.source import NoSource
from skyspan.testing.fake_clock import FakeClock
from skyspan.testing.fake_provider import (
    FakeProvider,
    FakeProviders,
    FakeWorld,
    StartableFakeProvider,
    StoppableFakeProvider,
)
from skyspan.testing.memory_store import MemoryStore
from skyspan.testing.provider_world import FoundTools, RecordingReporter
from skyspan.testing.scripted_transport import ScriptedTransport

SITE = DeploymentAddress("default", "site")


@dataclass
class Ran:
    """A run, as the store remembers it."""

    ended: RunEnded
    stages: Mapping[str, StageRunRecord]
    events: list[Event]

    def statuses(self) -> dict[str, str]:
        return {name: row.status.value for name, row in self.stages.items()}

    def change(self, stage: str) -> Change:
        planned = [event for event in self.events if isinstance(event, StagePlanned) and event.stage == stage]
        return Change.restore(planned[-1].change)

    def changes(self) -> dict[str, str]:
        return {name: row.change for name, row in self.stages.items()}

    def error(self, stage: str) -> Mapping[str, str]:
        error = self.stages[stage].error
        assert error is not None
        return error

    def kinds(self, stage: str) -> list[str]:
        return [event.kind for event in self.events if getattr(event, "stage", "") == stage]


@dataclass
class Rig:
    """One deployment and its world. `sources` are the digests of source files; `requests` what contexts were asked."""

    folder: Path
    world: FakeWorld = field(default_factory=FakeWorld)
    clock: FakeClock = field(default_factory=FakeClock)
    store: MemoryStore = field(default_factory=MemoryStore)
    report: RecordingReporter = field(default_factory=RecordingReporter)
    secrets: dict[str, Secret] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)
    source_digest: str = "as written"
    requests: list[ContextRequest] = field(default_factory=list)
    count: int = 0

    def checked(self, stages: Mapping[str, Any], **rest: Any) -> Checked:
        full = {name: {"uses": "fake", **stage} for name, stage in stages.items()}
        composition = Composition.model_validate({"skyspan": 1, "name": "site", "stages": full, **rest})
        return check(composition, NoSource(), lambda kind: self.providers().get(kind).spec)

    def providers(self) -> FakeProviders:
        return FakeProviders(
            FakeProvider(self.world),
            StoppableFakeProvider(self.world, "stoppable"),
            StartableFakeProvider(self.world, "startable"),
        )

    async def records(self) -> dict[str, StageRecord]:
        return {record.address.name: record for record in await self.store.stage_records(SITE)}

    async def run(self, verb: Verb, stages: Mapping[str, Any] | None = None, **options: Any) -> Ran:
        """A whole run of `verb`; `rest` are further keys of the composition."""
        approved, only = options.pop("approved", None), options.pop("only", ())
        checked = None if stages is None else self.checked(stages, **options.pop("rest", {}))
        records = await self.store.stage_records(SITE)
        self.count += 1
        run_id = f"run-{self.count:04}"
        if await self.store.deployment(SITE) is None:
            await self.store.save_deployment(DeploymentRecord(SITE))
        now = self.clock.now()
        lease = await self.store.acquire(Lease(SITE, "tester", 0, now + 30, run_id, verb), now)
        started = RunStarted(verb, outline(verb, checked, records, only), **options)
        wish = Wish(SITE, started, self.folder, checked, self.inputs, self.secrets, approved)
        means = Means(self.providers(), self, self, self.clock, b"key")
        driver = LocalDriver(self.store, self.clock)
        run = RunRecord(run_id, SITE, verb)
        try:
            ended = await driver.run(run, lease, started, StagePerformer(Knowledge(wish, means, records)))
        finally:
            await self.store.release(lease)
        rows = {row.name: row for row in await self.store.stage_runs(run_id)}
        return Ran(ended, rows, [item.event for item in await self.store.events(run_id)])

    async def up(self, stages: Mapping[str, Any], **options: Any) -> Ran:
        return await self.run(Verb.UP, stages, **options)

    async def plan(self, stages: Mapping[str, Any], **options: Any) -> Ran:
        return await self.run(Verb.PLAN, stages, **options)

    @asynccontextmanager
    async def enter(self, request: ContextRequest) -> AsyncIterator[Contexts]:
        """Contexts for an attempt; implements `attempts.ContextFactory`."""
        self.requests.append(request)
        shared: dict[str, Any] = {
            "address": request.address,
            "folder": request.folder,
            "work": self.folder / request.address.name,
            "hosts": request.hosts,
            "places": _Nowhere(),
            "report": self.report,
            "tools": FoundTools(),
            "clock": self.clock,
            "kept": self.store.kept(request.address, 0),
            "attempt": request.attempt,
            "deadline": request.deadline,
        }
        yield Contexts(ReadContext(**shared), StageContext(**shared, epoch=1))

    async def digest(self, folder: Path, sources: tuple[str, ...]) -> str:
        """Digests of source files; implements `attempts.SourceDigests`."""
        return f"{self.source_digest} {sources}"


class _Nowhere:
    def reach(self, host: str | None) -> Transport:
        return ScriptedTransport(host or "here")
