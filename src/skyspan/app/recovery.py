"""Runs that were interrupted: found, finished, wound up, cancelled or tried again; and every other run goes through
here, as it must not begin before what another engine left is settled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from skyspan.app import queries
from skyspan.app.alive import newest_change
from skyspan.app.holding import held, new_run_id
from skyspan.app.prepare import Prepared, recall
from skyspan.app.runs import Request, Result, RunEngine, Watcher, carry_out, finished
from skyspan.app.session import Session
from skyspan.contracts.store import Batch, DeploymentRecord, Lease, RunRecord
from skyspan.drivers.local import Aim
from skyspan.engine.faults import Fault
from skyspan.model.address import DeploymentAddress
from skyspan.model.change import Change
from skyspan.model.error import InDoubtError, NotFoundError, SkyspanError
from skyspan.model.event import CancelRequested, RecordedEvent, RunEnded, RunStarted, StageOutline
from skyspan.model.lifecycle import RunStatus, StageStatus, Verb
from skyspan.providers.registry import Registry

_PAGE = 2000


async def run_request(session: Session, request: Request, watcher: Watcher) -> Result:
    """Settle what an interrupted run of the deployment left, then carry out a new one.

    Raises RefusedError while somebody else holds the deployment, InDoubtError when a person must decide first, else as
    `runs.carry_out`."""
    async with held(session, request.address, request.verb, new_run_id()) as lease:
        await _make_room(session, request, lease, watcher)
        return await carry_out(session, request, lease, watcher)


async def resume(session: Session, name: str, watcher: Watcher) -> Result:
    """Finish the interrupted run of a deployment. Raises NotFoundError when there is none."""
    record = await queries.find_deployment(session, name)
    return await _take_up(session, record, watcher, Aim.finish())


async def cancel_interrupted(session: Session, name: str, by: str) -> Result:
    """Stop what the interrupted run of a deployment left running, and end it as cancelled."""
    record = await queries.find_deployment(session, name)
    return await _take_up(session, record, Watcher(), Aim.cancel(by))


async def retry_request(session: Session, name: str, stage: str) -> Request:
    """The request that runs a deployment's failed run on: `stage`, all that goes after it, and what did not end well.

    Raises NotFoundError when there is no such run or stage."""
    record = await queries.find_deployment(session, name)
    run = await queries.latest_run(session, record, writing=True)
    if run is None or not run.verb.writes:
        raise NotFoundError(f"there is no run of {name} to try again", hint="skyspan up")
    started = next((item.event for item in await _events(session, run.id) if isinstance(item.event, RunStarted)), None)
    if started is None:
        raise NotFoundError(f"run {run.id} of {name} never began", hint=f"skyspan {run.verb.value}")
    names = [outline.name for outline in started.stages]
    if stage not in names:
        raise NotFoundError(f"run {run.id} has no stage {stage!r}", hint=f"its stages: {', '.join(names)}")
    unwell = {row.name for row in await session.store.stage_runs(run.id) if not row.status.satisfies}
    request = _request(run, record, started)
    return replace(request, chosen=frozenset(unwell | {stage} | _after(started.stages, stage)))


async def _take_up(session: Session, record: DeploymentRecord, watcher: Watcher, aim: Aim) -> Result:
    address = record.address
    run = await _unfinished(session, address)
    async with held(session, address, run.verb, run.id) as lease:
        # Looked at again under the lease: somebody may have been faster.
        run = await _unfinished(session, address)
        recorded = await _events(session, run.id)
        if not recorded:
            await _end_unbegun(session, run, lease)
            raise SkyspanError(
                f"run {run.id} of {address.name} was killed before it began: nothing was touched",
                hint=f"skyspan {run.verb.value}",
            )
        return await _bring_to_end(session, record, run, recorded, (lease, watcher, _stopped(recorded, aim)))


async def _make_room(session: Session, request: Request, lease: Lease, watcher: Watcher) -> None:
    """Settle the runs that other engines began on this deployment: as we hold the lease, they are not at work."""
    for run in await session.store.runs(request.address):
        if run.status is not RunStatus.RUNNING:
            continue
        recorded = await _events(session, run.id)
        if not run.verb.writes or not recorded:
            await _end_unbegun(session, run, lease)
        elif request.verb.writes:
            record = await queries.find_deployment(session, request.address.name)
            aim = _stopped(recorded, Aim.wind_up(f"{request.verb.value} of {session.settings.person}"))
            # Its lines are told, not its events: those are another run's.
            await _bring_to_end(session, record, run, recorded, (lease, Watcher(line=watcher.line), aim))
            await _refuse_doubt(session, run)


async def _bring_to_end(
    session: Session,
    record: DeploymentRecord,
    run: RunRecord,
    recorded: Sequence[RecordedEvent],
    way: tuple[Lease, Watcher, Aim],
) -> Result:
    lease, watcher, aim = way
    started = next(item.event for item in recorded if isinstance(item.event, RunStarted))
    request = _request(run, record, started)
    records = tuple(await session.store.stage_records(record.address))
    async with RunEngine(session, request, lease, watcher, run.id) as engine:
        ended = await engine.resume(run, recorded, records, aim)
    return await finished(session, request, run, ended, engine.events)


def _request(run: RunRecord, record: DeploymentRecord, started: RunStarted) -> Request:
    """What was asked for when the run began."""
    prepared: Prepared | None = None
    if run.verb in (Verb.UP, Verb.START):
        prepared = recall(record, Registry())
    approved = None
    if started.approved is not None:
        approved = {stage: Change.restore(change) for stage, change in started.approved.items()}
    return Request(run.verb, record.address, prepared, fail_fast=started.fail_fast, approved=approved)


def _stopped(recorded: Sequence[RecordedEvent], aim: Aim) -> Aim:
    """A run that somebody had asked to cancel is not finished, but cancelled."""
    asked = next((item.event for item in recorded if isinstance(item.event, CancelRequested)), None)
    return aim if asked is None else Aim.cancel(asked.requested_by)


async def _unfinished(session: Session, address: DeploymentAddress) -> RunRecord:
    run = await newest_change(session, address)
    if run is None:
        raise NotFoundError(f"{address.name} has no run", hint="skyspan up")
    if run.status is not RunStatus.RUNNING:
        hint = f"`skyspan retry {address.name} --from STAGE` runs it on" if run.status is RunStatus.FAILED else ""
        raise NotFoundError(
            f"no run of {address.name} was interrupted: the last one, {run.id}, ended {run.status.value}", hint=hint
        )
    return run


async def _end_unbegun(session: Session, run: RunRecord, lease: Lease) -> None:
    """End a run that touched nothing."""
    ended = RunEnded(RunStatus.LOST, "its engine ended before it did; nothing was touched")
    session.reached(Fault.COMMIT_BEFORE)
    await session.store.append(run.id, lease, Batch(((session.clock.now(), ended),)))
    session.reached(Fault.COMMIT_AFTER)


async def _refuse_doubt(session: Session, run: RunRecord) -> None:
    rows = await session.store.stage_runs(run.id)
    lost = [row for row in rows if row.status is StageStatus.LOST]
    if not lost:
        return
    error = lost[0].error or {}
    raise InDoubtError(
        f"the interrupted run {run.id} of {run.deployment.name} left in doubt: {', '.join(row.name for row in lost)}",
        detail=error.get("detail", ""),
        hint=error.get("hint", "") + "; nothing new was begun",
    )


async def _events(session: Session, run_id: str) -> list[RecordedEvent]:
    found: list[RecordedEvent] = []
    while page := await session.store.events(run_id, found[-1].seq if found else 0, _PAGE):
        found += page
    return found


def _after(stages: Sequence[StageOutline], stage: str) -> set[str]:
    """The stages that wait for `stage`, near and far."""
    found: set[str] = {stage}
    for outline in stages:
        if found.intersection(outline.needs):
            found.add(outline.name)
    return found
