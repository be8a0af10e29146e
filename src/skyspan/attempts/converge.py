"""What `up` does to one stage: see what is there, and make it what the composition wants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from skyspan.attempts.contexts import Contexts
from skyspan.attempts.guard import refuse_beyond_approval, refuse_if_protected
from skyspan.attempts.host_record import host_records, restored_hosts
from skyspan.attempts.ready import until_ready
from skyspan.attempts.wanted import LeftOut, Wanted, lacking, left_out, marked, settled, wanted
from skyspan.attempts.work import Work, conceal, conceal_outputs
from skyspan.contracts.engine import Outcome
from skyspan.contracts.host import Host
from skyspan.contracts.provider import SupportsStart
from skyspan.contracts.store import StageRecord
from skyspan.model.change import Action, Change, Observation
from skyspan.model.error import NotReadyError, OutputError, StageError
from skyspan.model.lifecycle import StageStatus, Verb
from skyspan.model.value import OutputValue, Unknown
from skyspan.planning.outputs import check_outputs
from skyspan.planning.resolve import Absent


async def converge(work: Work) -> Outcome:
    """Bring the stage to what is wanted. Raises StageError; what has to be cleaned up is on record by then."""
    want = await wanted(work)
    if isinstance(want, Absent):
        return lacking(work, want)
    if isinstance(want, LeftOut):
        return left_out(work)
    if isinstance(want, Unknown):
        raise StageError(
            f"stage {work.stage} cannot be applied before {', '.join(sorted(want.references))} is known",
            hint="run without --only, so that the stages it reads are applied first",
        )
    async with work.contexts(_reachable(work, want)) as contexts:
        conceal([want.settings, host_records(want.hosts)], contexts.reading)
        return await _converge(work, want, contexts)


async def reapply(work: Work, effect: str, change: Change) -> Outcome:
    """Carry on an apply or a start that another engine intended: at once, as looking first would find it half done."""
    want = await wanted(work)
    if not isinstance(want, Wanted) or work.record is None:
        return await converge(work)
    async with work.contexts(_reachable(work, want)) as contexts:
        conceal([want.settings, host_records(want.hosts)], contexts.reading)
        conceal_outputs(work.record.outputs, contexts.reading)
        if effect == "start" and isinstance(want.provider, SupportsStart):
            seen = await want.provider.start(want.spec, contexts.writing)
        else:
            seen = await want.provider.apply(want.spec, change, contexts.writing)
        return await _finish(work, want, work.record, seen, contexts, StageStatus.SUCCEEDED, change)


def _reachable(work: Work, want: Wanted) -> dict[str, Host]:
    """The hosts that are wanted, and those on record: a stage has to clean up on a host that it leaves."""
    before = restored_hosts(work.record.hosts) if work.record is not None else {}
    return {**before, **want.hosts}


async def _converge(work: Work, want: Wanted, contexts: Contexts) -> Outcome:
    record = work.record
    seen = await want.provider.observe(want.spec, contexts.reading)
    conceal_outputs(marked(want, seen.outputs), contexts.reading)
    if record is not None and settled(want, record, seen):
        return _unchanged(work, want, record, seen)
    if record is not None and isinstance(want.provider, SupportsStart) and _may_start(work, want, record):
        return await _start(work, want, want.provider, contexts)
    change = await want.provider.plan(want.spec, seen, contexts.reading)
    work.planned(change)
    if change.action is Action.DEFERRED:
        raise StageError(f"stage {work.stage} could not be planned", detail=change.reason)
    refuse_if_protected(work, change)
    refuse_beyond_approval(work, change)
    if change.action is Action.NONE:
        return await _found(work, want, change, seen, contexts)
    intended = _record(work, want)
    await work.intend("apply", intended)
    seen = await want.provider.apply(want.spec, change, contexts.writing)
    return await _finish(work, want, intended, seen, contexts, StageStatus.SUCCEEDED, change)


def _unchanged(work: Work, want: Wanted, record: StageRecord, seen: Observation) -> Outcome:
    """Nothing to do. Its outputs are what they are now: an address may have been renewed without any drift."""
    outputs = check_outputs(want.outputs or {}, seen.outputs, work.stage)
    work.know.board.know(work.stage, outputs)
    work.planned(Change(Action.NONE, based_on=seen.fingerprint))
    put = None if outputs == record.outputs else replace(record, outputs=outputs, links=seen.links)
    return work.ended(StageStatus.UNCHANGED, change=Action.NONE.value, outputs=tuple(outputs), put=put)


async def _found(work: Work, want: Wanted, change: Change, seen: Observation, contexts: Contexts) -> Outcome:
    """The provider finds nothing to do, though it is on record otherwise or not at all: put it on record."""
    return await _finish(work, want, _record(work, want), seen, contexts, StageStatus.UNCHANGED, change)


def _may_start(work: Work, want: Wanted, record: StageRecord) -> bool:
    """Whether starting is enough: the same was applied to its end, and then stopped."""
    same = record.present and record.stopped and record.fingerprint == want.fingerprint
    return same and work.know.verb is Verb.START


async def _start(work: Work, want: Wanted, provider: SupportsStart, contexts: Contexts) -> Outcome:
    change = Change(Action.UPDATE, "it was stopped")
    intended = _record(work, want)
    work.planned(change)
    await work.intend("start", intended)
    seen = await provider.start(want.spec, contexts.writing)
    return await _finish(work, want, intended, seen, contexts, StageStatus.SUCCEEDED, change)


async def _finish(
    work: Work,
    want: Wanted,
    intended: StageRecord,
    seen: Observation,
    contexts: Contexts,
    status: StageStatus,
    change: Change,
) -> Outcome:
    """Wait until it is healthy, hold its outputs against the contract, put it on record."""
    conceal_outputs(marked(want, seen.outputs), contexts.reading)
    try:
        seen = await until_ready(want, seen, contexts.reading)
        conceal_outputs(marked(want, seen.outputs), contexts.reading)
        outputs = check_outputs(want.outputs or {}, seen.outputs, work.stage)
    except (NotReadyError, OutputError) as error:
        # It is there all the same: stop, check and destroy must find it. Without a fingerprint it is never skipped.
        there = replace(intended, present=intended.present or seen.exists, outputs=marked(want, seen.outputs))
        return work.failed(error, put=there)
    work.know.board.know(work.stage, outputs)
    record = _present(work, want, intended, outputs, seen)
    # Why it had to change was told by the plan; once it has, that reason is gone.
    reason = change.reason if status is StageStatus.UNCHANGED else ""
    return work.ended(status, reason, change=change.action.value, outputs=tuple(outputs), put=record)


def _present(
    work: Work, want: Wanted, intended: StageRecord, outputs: Mapping[str, OutputValue], seen: Observation
) -> StageRecord:
    return replace(
        intended,
        fingerprint=want.fingerprint,
        hosts=host_records(want.hosts),
        present=True,
        stopped=False,
        outputs=dict(outputs),
        links=seen.links,
        applied_at=work.know.means.clock.now(),
    )


def _record(work: Work, want: Wanted) -> StageRecord:
    """The record with which the effect begins: enough to clean up, and never taken for a finished apply."""
    declared, before = work.know.declared(work.stage), work.record
    return StageRecord(
        address=work.address,
        uses=want.uses,
        spec=want.settings,
        # Until the apply has come to its end, what it leaves is still to be reached.
        hosts=host_records(_reachable(work, want)),
        needs=work.know.needs(work.stage),
        order=work.know.order(work.stage),
        present=before.present if before is not None else False,
        stopped=before.stopped if before is not None else False,
        best_effort=declared.best_effort if declared is not None else False,
        prevent_destroy=declared.prevent_destroy if declared is not None else False,
        on_stop=declared.on_stop if declared is not None else "stop",
        outputs=before.outputs if before is not None else {},
        links=before.links if before is not None else (),
        folder=str(want.folder),
        applied_at=before.applied_at if before is not None else 0.0,
    )
