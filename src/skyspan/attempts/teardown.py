"""What `destroy` does to one stage, and `up` to one that left the composition: remove it, from what was recorded."""

from __future__ import annotations

from skyspan.attempts.guard import refuse_beyond_approval, refuse_if_protected, removal
from skyspan.attempts.wanted import as_recorded, recorded
from skyspan.attempts.work import Work
from skyspan.contracts.engine import Outcome
from skyspan.model.change import Action, Change
from skyspan.model.lifecycle import StageStatus


async def destroy(work: Work) -> Outcome:
    """Destroy the stage. Raises StageError; its record stays until it is gone."""
    return await _destroy(work, Change(Action.DESTROY))


async def remove(work: Work) -> Outcome:
    """Destroy a stage that left the composition."""
    record = work.record
    return await _destroy(work, Change(Action.DESTROY) if record is None else removal(record))


async def _destroy(work: Work, change: Change) -> Outcome:
    record = work.record
    if record is None:
        return work.ended(StageStatus.DESTROYED, "it was gone already", removed=work.address)
    work.planned(change)
    refuse_if_protected(work, change)
    refuse_beyond_approval(work, change)
    want = recorded(work.know, record)
    async with as_recorded(work, want, record) as contexts:
        await work.intend("destroy", record)
        await want.provider.destroy(want.spec, contexts.writing)
    return work.ended(StageStatus.DESTROYED, change.reason, change=change.action.value, removed=work.address)
