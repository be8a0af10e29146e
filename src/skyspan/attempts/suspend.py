"""What `stop` and `start` do to one stage."""

from __future__ import annotations

from dataclasses import replace

from skyspan.attempts.converge import converge
from skyspan.attempts.wanted import as_recorded, recorded
from skyspan.attempts.work import Work
from skyspan.contracts.engine import Outcome
from skyspan.contracts.provider import SupportsKeep, SupportsStop
from skyspan.model.change import Action, Change
from skyspan.model.lifecycle import StageStatus


async def stop(work: Work) -> Outcome:
    """Suspend the stage where it can be; otherwise say why it keeps running. Raises StageError."""
    record = work.record
    if record is None or not record.present:
        return work.ended(StageStatus.UNCHANGED, "nothing of it is running")
    if _on_stop(work) == "keep":
        return work.ended(StageStatus.UNCHANGED, "keeps running: its on_stop is keep")
    want = recorded(work.know, record)
    provider = want.provider
    if not isinstance(provider, SupportsStop):
        return work.ended(StageStatus.UNCHANGED, f"keeps running: {record.uses} cannot be stopped")
    if isinstance(provider, SupportsKeep) and (why := provider.kept_because(want.spec)):
        return work.ended(StageStatus.UNCHANGED, f"keeps running: {why}")
    work.planned(Change(Action.UPDATE, "stop"))
    # From the intent on it counts as stopped, so that a stop cut short is never taken for something that runs well.
    stopped = replace(record, stopped=True)
    async with as_recorded(work, want, record) as contexts:
        await work.intend("stop", stopped)
        await provider.stop(want.spec, contexts.writing)
    return work.ended(StageStatus.STOPPED, change=Action.UPDATE.value, outputs=tuple(record.outputs), put=stopped)


async def start(work: Work) -> Outcome:
    """Bring back a stage that was applied before; what keeps running is only looked at. Raises StageError."""
    if work.record is None:
        work.know.board.lack(work.stage, "it was never applied")
        return work.ended(StageStatus.SKIPPED, "it was never applied: `skyspan up` does that")
    return await converge(work)


def _on_stop(work: Work) -> str:
    declared = work.know.declared(work.stage)
    if declared is not None:
        return declared.on_stop
    return work.record.on_stop if work.record is not None else "stop"
