"""Carrying out a run: lease, context, engine, driver; from a request to its result."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from skyspan.app import documents
from skyspan.app.contexts import RunContexts, tool_finder, work_folder
from skyspan.app.holding import RUN_VARIABLE, held
from skyspan.app.preflight import preflight
from skyspan.app.prepare import Prepared, read_secrets
from skyspan.app.reporting import OnLine, RunLog
from skyspan.app.session import Session
from skyspan.app.sources import FileDigests
from skyspan.attempts.knowledge import Knowledge, Means, Wish
from skyspan.attempts.performer import StagePerformer
from skyspan.contracts.store import DeploymentRecord, Lease, RunRecord, StageRecord
from skyspan.drivers.local import LocalDriver, Pace
from skyspan.model.address import DeploymentAddress
from skyspan.model.change import Change
from skyspan.model.diagnostic import Diagnostic
from skyspan.model.event import Event, RecordedEvent, RunEnded, RunStarted
from skyspan.model.lifecycle import RunStatus, Verb
from skyspan.model.secret import Secret
from skyspan.planning.outline import outline
from skyspan.providers.registry import Registry
from skyspan.secrets.redactor import Redactor
from skyspan.transports.dialler import HostDialler
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


async def carry_out(session: Session, request: Request, watcher: Watcher) -> Result:
    """Carry out the run.

    Raises RefusedError while somebody else holds the deployment, CompositionError and PreflightError before anything
    is touched, StoreError when what happens cannot be recorded.
    """
    async with held(session, request.address, request.verb) as lease:
        run = RunRecord(
            lease.run_id,
            request.address,
            request.verb,
            started_at=session.clock.now(),
            epoch=lease.epoch,
            requested_by=session.person,
        )
        records = await _register(session, request)
        async with _Engine(session, request, lease, watcher) as engine:
            ended = await engine.run(run, records)
        stages = await session.store.stage_runs(run.id)
        finished = await session.store.run(run.id) or run
    if request.verb is Verb.DESTROY and ended.status is RunStatus.SUCCEEDED and not request.only:
        shutil.rmtree(work_folder(session, request.address.name), ignore_errors=True)
    return Result(ended, documents.show_document(finished, stages), tuple(engine.events))


class _Engine:
    """Everything one run works with, put together and taken apart again."""

    def __init__(self, session: Session, request: Request, lease: Lease, watcher: Watcher) -> None:
        self._session, self._request, self._lease, self._watcher = session, request, lease, watcher
        self.events: list[Event] = []
        self._redactor = Redactor()
        self._registry = Registry()
        self._log = RunLog(lease.run_id, session.store, session.clock, watcher.line)
        settings = session.settings
        self._dialler = HostDialler(
            LocalTransport({**settings.child_env, RUN_VARIABLE: lease.run_id}),
            SshSettings(settings.known_hosts, settings.identities, settings.ssh_agent),
        )
        self._contexts = RunContexts(
            session, lease.epoch, self._log, self._redactor, self._dialler, tool_finder(session)
        )

    async def __aenter__(self) -> _Engine:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        await self._dialler.close()
        try:
            await self._log.close()
        except Exception:
            if kind is None:
                raise

    async def run(self, run: RunRecord, records: tuple[StageRecord, ...]) -> RunEnded:
        """Check what can be checked, then let the driver go."""
        request, session = self._request, self._session
        started = self._started(records)
        secrets = await self._secrets()
        if request.prepared is not None and request.verb in (Verb.PLAN, Verb.UP, Verb.START):
            stages = [stage.name for stage in started.stages if not stage.removed]
            self._watcher.warn(
                await preflight(request.prepared, request.address, stages, secrets, self._registry, self._contexts)
            )
        wish = Wish(
            deployment=request.address,
            started=started,
            folder=_folder(request, records),
            checked=request.prepared.checked if request.prepared else None,
            inputs=request.prepared.inputs if request.prepared else {},
            secrets=secrets,
            approved=request.approved,
            home=session.settings.user_home,
        )
        key = session.sealer.fingerprint_key(request.address.workspace)
        means = Means(self._registry, self._contexts, FileDigests(), session.clock, key)
        performer = StagePerformer(Knowledge(wish, means, records))
        driver = LocalDriver(session.store, session.clock, (self._hear,), redact=self._redactor.text, pace=Pace())
        with _interruptible(driver, session.person):
            return await driver.run(run, self._lease, started, performer)

    def _started(self, records: tuple[StageRecord, ...]) -> RunStarted:
        request = self._request
        prepared = request.prepared
        verb = Verb.DESTROY if request.verb is Verb.CHECK and prepared is None else request.verb
        stages = outline(verb, prepared.checked if prepared else None, records, request.only)
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


async def _register(session: Session, request: Request) -> tuple[StageRecord, ...]:
    """Remember the deployment with the composition it is about to use; its stages' records as they are."""
    known = await session.store.deployment(request.address)
    now = session.clock.now()
    prepared = request.prepared
    if known is None or (prepared is not None and request.verb is not Verb.PLAN):
        record = known or DeploymentRecord(request.address, created_at=now)
        if prepared is not None:
            record = replace(
                record, folder=str(prepared.folder), composition=prepared.raw, inputs=prepared.inputs, updated_at=now
            )
        await session.store.save_deployment(record)
    return tuple(await session.store.stage_records(request.address))


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
