"""What `plan` and `check` do to one stage: look, and touch nothing."""

from __future__ import annotations

from dataclasses import replace

from skyspan.attempts.contexts import Contexts
from skyspan.attempts.guard import refuse_if_protected, removal
from skyspan.attempts.host_record import host_records
from skyspan.attempts.wanted import LeftOut, Wanted, as_recorded, lacking, left_out, marked, recorded, settled, wanted
from skyspan.attempts.work import Work, conceal, conceal_outputs
from skyspan.contracts.engine import Outcome
from skyspan.model.change import Action, Change, Observation
from skyspan.model.error import NotReadyError, StageError, UnreachableError
from skyspan.model.lifecycle import StageStatus
from skyspan.model.value import Unknown
from skyspan.planning.outputs import check_outputs
from skyspan.planning.resolve import Absent


async def plan(work: Work) -> Outcome:
    """Find out what `up` would do. Raises StageError when that cannot be found out."""
    if work.know.outline(work.stage).removed:
        return _plan_removal(work)
    want = await wanted(work)
    if isinstance(want, Absent):
        return lacking(work, want)
    if isinstance(want, LeftOut):
        return left_out(work)
    if isinstance(want, Unknown):
        return _foreseen(work, Change.deferred(want.references))
    async with work.contexts(want.hosts) as contexts:
        conceal([want.settings, host_records(want.hosts)], contexts.reading)
        try:
            return await _plan(work, want, contexts)
        except UnreachableError as error:
            return _deferred_by_silence(work, error)


async def check(work: Work) -> Outcome:
    """Hold the real thing against what was applied. Raises StageError when it cannot be seen."""
    record = work.record
    if record is None:
        return work.ended(StageStatus.SKIPPED, "it was never applied")
    want = recorded(work.know, record)
    async with as_recorded(work, want, record) as contexts:
        seen = await want.provider.observe(want.spec, contexts.reading)
        conceal_outputs(seen.outputs, contexts.reading)
    if record.stopped:
        return work.ended(StageStatus.STOPPED, "it is stopped", outputs=tuple(record.outputs))
    if not record.present:
        return _found_wrong(work, "its last apply did not end", Change(Action.UPDATE, "its last apply did not end"))
    return _judged(work, seen)


async def _plan(work: Work, want: Wanted, contexts: Contexts) -> Outcome:
    record = work.record
    seen = await want.provider.observe(want.spec, contexts.reading)
    conceal_outputs(marked(want, seen.outputs), contexts.reading)
    if record is not None and settled(want, record, seen):
        change = Change.none(seen)
    else:
        change = await want.provider.plan(want.spec, seen, contexts.reading)
    change = replace(change, outputs=marked(want, change.outputs))
    conceal_outputs(change.outputs, contexts.reading)
    if change.action is Action.NONE:
        work.know.board.know(work.stage, check_outputs(want.outputs or {}, change.outputs, work.stage))
        work.planned(change)
        return work.ended(
            StageStatus.UNCHANGED, change.reason, change=change.action.value, outputs=tuple(change.outputs)
        )
    outcome = _foreseen(work, change)
    refuse_if_protected(work, change)
    return outcome


def _foreseen(work: Work, change: Change) -> Outcome:
    work.know.board.foresee(work.stage, change)
    work.planned(change)
    return work.ended(StageStatus.SUCCEEDED, change.reason, change=change.action.value)


def _plan_removal(work: Work) -> Outcome:
    record = work.record
    if record is None:
        return work.ended(StageStatus.UNCHANGED, "it is gone already", change=Action.NONE.value)
    change = removal(record)
    outcome = _foreseen(work, change)
    refuse_if_protected(work, change)
    return outcome


def _deferred_by_silence(work: Work, error: UnreachableError) -> Outcome:
    """A place that does not answer yet may do so once what the stage needs is there: a host behind a link."""
    pending = work.know.pending_needs(work.stage)
    if not pending:
        raise error
    return _foreseen(work, Change(Action.DEFERRED, f"waits for {', '.join(pending)}: {error.summary}"))


def _judged(work: Work, seen: Observation) -> Outcome:
    if not seen.exists:
        reason = f"it is gone: {seen.reason}" if seen.reason else "it is gone"
        return _found_wrong(work, reason, Change(Action.CREATE, reason))
    if seen.drifted:
        reason = seen.reason or f"it is not what was applied: {_drift(seen)}"
        return _found_wrong(work, reason, Change(Action.UPDATE, reason, resources=seen.drift))
    if not seen.healthy:
        reason = seen.reason or "it is not healthy"
        return _found_wrong(work, reason, Change(Action.UPDATE, reason))
    work.planned(Change(Action.NONE))
    return work.ended(StageStatus.SUCCEEDED, change=Action.NONE.value, outputs=tuple(seen.outputs))


def _found_wrong(work: Work, reason: str, change: Change) -> Outcome:
    """Not an attempt that failed, to be tried again, but a finding."""
    work.planned(change)
    kind = NotReadyError if change.action is Action.UPDATE and not change.resources else StageError
    error = kind(
        f"stage {work.stage}: {reason}",
        detail="\n".join(
            f"{item.action} {item.address}{f' ({item.note})' if item.note else ''}" for item in change.resources
        ),
        hint="`skyspan up` brings it back to what is wanted",
    )
    return work.ended(StageStatus.FAILED, reason, change=change.action.value, error=error.record())


def _drift(seen: Observation, shown: int = 3) -> str:
    names = [item.address for item in seen.drift]
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more if names else "changed outside"
