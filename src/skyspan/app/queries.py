"""Questions about what is remembered; each answers with a published document."""

from __future__ import annotations

import difflib
from collections.abc import AsyncIterator
from typing import Any

from skyspan.app import documents
from skyspan.app.alive import interrupted_run, live_holder
from skyspan.app.session import Session
from skyspan.contracts.store import DeploymentRecord, RunRecord
from skyspan.model.error import NotFoundError
from skyspan.model.lifecycle import RunStatus

Document = documents.Document

_FOLLOW_EVERY_S = 0.25
_PAGE = 2000


async def find_deployment(session: Session, name: str) -> DeploymentRecord:
    """The deployment's record; raises NotFoundError naming the nearest one."""
    found = await session.store.deployment(session.address(name))
    if found is not None:
        return found
    names = [item.address.name for item in await session.store.deployments(session.settings.workspace)]
    near = difflib.get_close_matches(name, names, n=1)
    raise NotFoundError(
        f"there is no deployment {name!r} in workspace {session.settings.workspace!r}",
        hint=f"did you mean {near[0]!r}?" if near else "`skyspan list` shows what there is; `skyspan up` makes one",
    )


async def find_run(session: Session, run_id: str) -> RunRecord:
    """The run with that id or unambiguous beginning; raises NotFoundError."""
    found = await session.store.run(run_id)
    if found is None:
        raise NotFoundError(f"there is no run {run_id!r}", hint="`skyspan runs NAME` lists a deployment's runs")
    return found


async def latest_run(session: Session, record: DeploymentRecord, *, writing: bool = False) -> RunRecord | None:
    """The newest run of a deployment; with `writing`, the newest that could change something, if there is one."""
    runs = await session.store.runs(record.address, limit=50)
    if writing:
        return next((run for run in runs if run.verb.writes), runs[0] if runs else None)
    return runs[0] if runs else None


async def status(session: Session, name: str) -> Document:
    """How a deployment stands: its last run that could change something, stage by stage."""
    record = await find_deployment(session, name)
    run = await latest_run(session, record, writing=True)
    stages = await session.store.stage_runs(run.id) if run else ()
    cut_off = run is not None and await interrupted_run(session, record.address) is not None
    return {**documents.status_document(record, run, stages), "interrupted": cut_off}


async def deployments(session: Session) -> Document:
    """All deployments of the workspace."""
    found = await session.store.deployments(session.settings.workspace)
    interrupted = {
        item.address.name
        for item in found
        if (item.status.busy or not item.last_run) and await interrupted_run(session, item.address) is not None
    }
    return documents.list_document(found, interrupted)


async def runs(session: Session, name: str, limit: int) -> Document:
    """A deployment's history, newest first."""
    record = await find_deployment(session, name)
    return documents.runs_document(name, await session.store.runs(record.address, limit))


async def show(session: Session, run_id: str) -> Document:
    """One run, stage by stage."""
    run = await find_run(session, run_id)
    return documents.show_document(run, await session.store.stage_runs(run.id))


async def outputs(session: Session, name: str, stage: str | None, *, reveal: bool) -> Document:
    """What the stages gave, per stage and merged."""
    record = await find_deployment(session, name)
    records = await session.store.stage_records(record.address)
    if stage is not None:
        known = [item.address.name for item in records]
        records = [item for item in records if item.address.name == stage]
        if not records:
            raise NotFoundError(f"{name} has no stage {stage!r}", hint=f"its stages: {', '.join(known) or 'none'}")
    if reveal:
        from skyspan.app.audit import remember

        await remember(session, "outputs revealed", name, stage or "all stages")
    return documents.outputs_document(records, reveal)


async def links(session: Session, name: str) -> Document:
    """Links between hosts, and where to look at each stage."""
    from skyspan.contracts.provider import SupportsLinks
    from skyspan.providers.registry import Registry

    record = await find_deployment(session, name)
    registry = Registry()
    records = await session.store.stage_records(record.address)
    described: dict[str, Any] = {}
    for item in records:
        provider = registry.get(item.uses)
        if isinstance(provider, SupportsLinks):
            described[item.address.name] = provider.describe_link(provider.spec.model_validate(item.spec))
    return documents.links_document(records, described)


async def log_lines(session: Session, run: RunRecord, stage: str | None, *, follow: bool) -> AsyncIterator[Document]:
    """The merged log of a run, line by line; with `follow`, until the run has ended."""
    after = 0
    while True:
        # Asked before the lines are read: what was written until then is read below.
        over = not follow or await _is_over(session, run)
        while lines := await session.store.log(run.id, stage, after, _PAGE):
            for line in lines:
                yield documents.log_document(line)
            after = lines[-1].seq
        if over:
            return
        await session.clock.sleep(_FOLLOW_EVERY_S)


async def run_events(session: Session, run: RunRecord, *, follow: bool) -> AsyncIterator[Document]:
    """The events of a run; with `follow`, until it has ended."""
    after = 0
    while True:
        over = not follow or await _is_over(session, run)
        while events := await session.store.events(run.id, after, _PAGE):
            for recorded in events:
                yield documents.event_document(recorded)
            after = events[-1].seq
        if over:
            return
        await session.clock.sleep(_FOLLOW_EVERY_S)


async def _is_over(session: Session, run: RunRecord) -> bool:
    """Whether nothing more will come: the run has ended, or nobody holds its deployment any more."""
    now = await session.store.run(run.id)
    if now is None or now.status is not RunStatus.RUNNING:
        return True
    holder = await live_holder(session, run.deployment)
    return holder is None or holder.run_id != run.id
