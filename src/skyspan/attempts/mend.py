"""What a repair does to one stage: one step on one end of a link that is down."""

from __future__ import annotations

from skyspan.attempts.wanted import as_recorded, recorded
from skyspan.attempts.work import Work
from skyspan.contracts.engine import Outcome
from skyspan.contracts.watch import SupportsWatch
from skyspan.model.lifecycle import StageStatus


async def mend(work: Work) -> Outcome:
    """Take the step. Raises StageError. One that another engine began is not taken again: whoever watches sees whether
    it helped."""
    record, step = work.record, work.know.wish.repairs.get(work.stage)
    if record is None or not record.present or record.stopped:
        return work.ended(StageStatus.UNCHANGED, "nothing of it is running")
    want = recorded(work.know, record)
    if step is None or not isinstance(want.provider, SupportsWatch):
        return work.ended(StageStatus.CANCELLED, "whoever watched over it is gone")
    async with as_recorded(work, want, record) as contexts:
        await work.intend(f"repair ({step.name} on {step.host})", record)
        await want.provider.repair(want.spec, step, contexts.writing)
    return work.ended(StageStatus.SUCCEEDED, f"{step.name} on {step.host}", outputs=tuple(record.outputs))
