"""Carrying out a run: lease, context, engine, driver; from a request to its result."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from skyspan.app import documents
from skyspan.app.contexts import RunContexts, tool_finder
from skyspan.app.folders import work_folder
from skyspan.app.holding import LeasedLog
from skyspan.app.preflight import preflight
from skyspan.app.prepare import Prepared, read_secrets
from skyspan.app.reporting import OnLine, RunLog
from skyspan.app.session import Session
from skyspan.app.sources import FileDigests
from skyspan.app.traces import KeeperTraces, by_attempt
from skyspan.attempts.knowledge import Knowledge, Means, Wish
from skyspan.attempts.performer import StagePerformer
from skyspan.attempts.settle import cut_off, remember_ends
from skyspan.contracts.store import DeploymentRecord, Lease, RunRecord, StageRecord
from skyspan.contracts.watch import Repair
from skyspan.drivers.local import Aim, LocalDriver, Pace
from skyspan.engine.faults import Fault
from skyspan.model.address import DeploymentAddress
from skyspan.model.change import Change
from skyspan.model.diagnostic import Diagnostic
from skyspan.model.error import FencedError
from skyspan.model.event import AttemptFailed, Event, RecordedEvent, RunEnded, RunStarted, StageEnded
from skyspan.model.lifecycle import RunStatus, Verb
from skyspan.model.secret import Secret
from skyspan.planning.outline import outline
from skyspan.providers.registry import Registry
from skyspan.secrets.redactor import Redactor
from skyspan.transports.dialler import HostDialler
from skyspan.transports.keeper.address import AttemptKey, RunKey, keeper_place
from skyspan.transports.keeper.link import KeeperLink
from skyspan.transports.keeper.transport import Keeping
from skyspan.transports.local import LocalTransport
from skyspan.transports.ssh_connect import SshSettings

OnEvent = Callable[[float, Event], None]


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked: a verb on a deployment. `prepared` is None for verbs that work from what was recorded."""

    verb: Verb
    address: DeploymentAddress
    prepared: Prepared | None = None
    only: tuple[str, ...] = ()
    fail_fast: bool = False
    approved: Mapping[str, Change] | None = None
    chosen: frozenset[str] | None = None
    """Exactly these stages; what others came to before counts."""
    repairs: Mapping[str, Repair] = field(default_factory=dict)
    """By stage, the step that a repair takes."""


@dataclass(frozen=True, slots=True)
class Watcher:
    """Who is told while the run goes on: of events, of log lines, of warnings found before it."""

    event: OnEvent = lambda _at, _event: None
    line: OnLine = lambda _stage, _text: None
    warn: Callable[[tuple[Diagnostic, ...]], None] = lambda _found: None


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended, with its published document and every event."""

    ended: RunEnded
    document: documents.Document
    events: tuple[Event, ...] = field(repr=False, default=())


async def carry_out(session: Session, request: Request, lease: Lease, watcher: Watcher) -> Result:
    """Carry out a new run under `lease`.

    Raises CompositionError and PreflightError before anything is touched, StoreError when what happens cannot be
    recorded, FencedError when somebody else took the deployment over.
    """
    run = RunRecord(
        lease.run_id,
        request.address,
        request.verb,
        started_at=session.clock.now(),
        epoch=lease.epoch,
        requested_by=session.person,
    )
    async with RunEngine(session, request, lease, watcher) as engine:
        ended = await engine.run(run)
    return await finished(session, request, run, ended, engine.events)


async def finished(
    session: Session, request: Request, run: RunRecord, ended: RunEnded, events: Sequence[Event]
) -> Result:
    """The result of a run that has ended."""
    stages = await session.store.stage_runs(run.id)
    record = await session.store.run(run.id) or run
    whole = not request.only and request.chosen is None
    if request.verb is Verb.DESTROY and ended.status is RunStatus.SUCCEEDED and whole:
        shutil.rmtree(work_folder(session, request.address.name), ignore_errors=True)
    return Result(ended, documents.show_document(record, stages), tuple(events))


class RunEngine:
    """Everything one run works with, put together and taken apart again; `run_id` is one that is carried on."""

    def __init__(
        self, session: Session, request: Request, lease: Lease, watcher: Watcher, run_id: str | None = None
    ) -> None:
        self._session, self._request, self._lease, self._watcher = session, request, lease, watcher
        self.events: list[Event] = []
        self._redactor = Redactor()
        self._registry = Registry()
        settings = session.settings
        self._reached = session.reached
        run = self._run_id = run_id or lease.run_id
        self._log = RunLog(
            run, LeasedLog(session.store, lease), session.clock, watcher.line, self._reached, settings.home
        )
        local = LocalTransport(settings.child_env)
        self._dialler = HostDialler(local, SshSettings(settings.known_hosts, settings.identities, settings.ssh_agent))
        self._key = session.sealer.fingerprint_key(request.address.workspace)
        self._link = KeeperLink(
            keeper_place(settings.home), RunKey(str(request.address), run, lease.epoch, fresh=run_id is None)
        )
        self._driver = LocalDriver(
            session.store,
            session.clock,
            (self._hear,),
            redact=self._redactor.text,
            pace=Pace.for_lease(settings.lease_s),
            reached=self._reached,
        )
        keeping = Keeping(self._link, settings.child_env, self._key, self._reached, self._driver.assured)
        self._contexts = RunContexts(
            session,
            request.address.name,
            run,
            lease.epoch,
            self._log,
            self._redactor,
            self._dialler,
            tool_finder(session),
            keeping,
            local,
        )

    async def __aenter__(self) -> RunEngine:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        await self._link.close()
        await self._dialler.close()
        try:
            await self._log.close()
        except Exception:
            if kind is None:
                raise

    async def run(self, run: RunRecord) -> RunEnded:
        """Check what can be checked, then let the driver go. What is refused leaves no trace."""
        request = self._request
        records = tuple(await self._session.store.stage_records(request.address))
        started = self._started(records)
        secrets = await self._secrets()
        if request.prepared is not None and request.verb in (Verb.PLAN, Verb.UP, Verb.START):
            stages = [stage.name for stage in started.stages if not stage.removed]
            self._watcher.warn(
                await preflight(request.prepared, request.address, stages, secrets, self._registry, self._contexts)
            )
        await _register(self._session, request, self._lease)
        if request.verb.writes:
            # Before the first intent, so that the keeper knows of every command from the first.
            await self._link.open()
            await self._sweep()
        know = self._knowledge(started, records, secrets)
        if request.chosen is not None:
            for record in records:
                if record.present and record.address.name not in request.chosen:
                    know.board.know(record.address.name, record.outputs)
        with self._interruptible():
            ended = await self._driver.run(run, self._lease, started, StagePerformer(know))
        return await self._closed(ended, run)

    async def resume(
        self, run: RunRecord, recorded: Sequence[RecordedEvent], records: tuple[StageRecord, ...], aim: Aim
    ) -> RunEnded:
        """Bring a run to its end that another engine began; see `LocalDriver.resume`."""
        started = next(item.event for item in recorded if isinstance(item.event, RunStarted))
        await self._link.open()
        traces = KeeperTraces(self._link, by_attempt(await self._link.records()))
        self._contexts = replace(self._contexts, started=traces.started)
        know = self._knowledge(started, records, await self._secrets(), traces)
        events = [item.event for item in recorded]
        for event in events:
            if isinstance(event, StageEnded | AttemptFailed):
                self._contexts.discard_files(event.stage, event.attempt)
        remember_ends(know, events)
        self.events += events
        for item in recorded:
            self._watcher.event(item.at, item.event)
        performer = StagePerformer(know, cut_off(events))
        with self._interruptible():
            ended = await self._driver.resume(run, self._lease, recorded, performer, aim, traces.stop_all)
        return await self._closed(ended, run)

    def _knowledge(
        self,
        started: RunStarted,
        records: tuple[StageRecord, ...],
        secrets: Mapping[str, Secret],
        traces: KeeperTraces | None = None,
    ) -> Knowledge:
        request, session = self._request, self._session
        wish = Wish(
            deployment=request.address,
            started=started,
            folder=_folder(request, records),
            checked=request.prepared.checked if request.prepared else None,
            inputs=request.prepared.inputs if request.prepared else {},
            secrets=secrets,
            approved=request.approved,
            home=session.settings.user_home,
            repairs=request.repairs,
        )
        means = Means(self._registry, self._contexts, FileDigests(), session.clock, self._key, traces)
        return Knowledge(wish, means, records)

    def _interruptible(self) -> AbstractContextManager[None]:
        # Who watches over links hears of signals itself, and cancels its repair.
        watched = self._request.verb is Verb.REPAIR
        return nullcontext() if watched else _interruptible(self._driver, self._session.person)

    async def _closed(self, ended: RunEnded, run: RunRecord) -> RunEnded:
        """The run's end is on record: nothing is kept of it here. Raises FencedError when another one carries it on."""
        if self._driver.fenced:
            name = run.deployment.name
            raise FencedError(
                f"another engine took run {run.id} of {name} over, as this one gave no sign of life",
                detail=ended.reason,
                hint=f"nothing was changed since; skyspan status {name} shows how it goes on",
            )
        if self._request.verb.writes:
            self._reached(Fault.CLOSE_BEFORE)
            await self._link.end_run(self._run_id)
            self._reached(Fault.CLOSE_AFTER)
        return ended

    async def _sweep(self) -> None:
        """Let the keeper forget runs whose engine was killed when it had nothing left to do but that."""
        for run_id in self._link.known_runs():
            if run_id != self._run_id:
                run = await self._session.store.run(run_id)
                if run is None or run.status is not RunStatus.RUNNING:
                    await self._link.end_run(run_id)
                    self._contexts.discard_files("*", run_id=run_id)

    def _started(self, records: tuple[StageRecord, ...]) -> RunStarted:
        request = self._request
        prepared = request.prepared
        alone = request.verb is Verb.REPAIR or (request.verb is Verb.CHECK and prepared is None)
        verb = Verb.DESTROY if alone else request.verb
        stages = outline(verb, prepared.checked if prepared else None, records, request.only)
        if request.chosen is not None:
            stages = tuple(stage for stage in stages if stage.name in request.chosen)
        if verb is not request.verb:
            # Looking has no order: nothing is touched, so every recorded stage is looked at, whatever the others say.
            stages = tuple(replace(stage, needs=(), attempts=1) for stage in stages)
        return RunStarted(
            verb=request.verb,
            stages=stages,
            concurrency=self._session.settings.concurrency,
            fail_fast=request.fail_fast,
            requested_by=self._session.person,
            composition_digest=prepared.digest if prepared else "",
            approved=None if request.approved is None else {name: it.record() for name, it in request.approved.items()},
        )

    async def _secrets(self) -> dict[str, Secret]:
        prepared = self._request.prepared
        if prepared is None:
            return {}
        secrets = await read_secrets(self._session, prepared)
        for name, secret in secrets.items():
            self._redactor.learn(secret, name)
        for name, value in prepared.inputs.items():
            if isinstance(value, Secret):
                self._redactor.learn(value, name)
        return secrets

    def _hear(self, recorded: RecordedEvent) -> None:
        self.events.append(recorded.event)
        self._watcher.event(recorded.at, recorded.event)
        if isinstance(recorded.event, StageEnded | AttemptFailed) and self._request.verb.writes:
            self._reached(Fault.ACK_BEFORE)
            self._link.forget(AttemptKey(recorded.event.stage, recorded.event.attempt))
            self._contexts.discard_files(recorded.event.stage, recorded.event.attempt)
            self._reached(Fault.ACK_AFTER)


async def _register(session: Session, request: Request, lease: Lease) -> None:
    """Remember the deployment with the composition it is about to use."""
    known = await session.store.deployment(request.address)
    now = session.clock.now()
    prepared = request.prepared
    if known is None or (prepared is not None and request.verb is not Verb.PLAN):
        record = known or DeploymentRecord(request.address, created_at=now)
        if prepared is not None:
            record = replace(
                record, folder=str(prepared.folder), composition=prepared.raw, inputs=prepared.inputs, updated_at=now
            )
        session.reached(Fault.REGISTER_BEFORE)
        await session.store.save_deployment(record, lease)
        session.reached(Fault.REGISTER_AFTER)


def _folder(request: Request, records: tuple[StageRecord, ...]) -> Path:
    if request.prepared is not None:
        return request.prepared.folder
    return next((Path(record.folder) for record in records if record.folder), Path("/"))


class _interruptible:  # noqa: N801 - reads as what it does
    """Ctrl-C and SIGTERM cancel the run in order; the second time, at once."""

    def __init__(self, driver: LocalDriver, person: str) -> None:
        self._driver, self._person = driver, person
        self._signals = (signal.SIGINT, signal.SIGTERM)

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        for number in self._signals:
            loop.add_signal_handler(number, self._driver.cancel, self._person)

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for number in self._signals:
            loop.remove_signal_handler(number)
