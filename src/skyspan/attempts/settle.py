"""Carries on attempts that another engine began and was cut off in: again where it is known what they did, else anew,
and not at all where nobody can know."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from skyspan.attempts.converge import reapply
from skyspan.attempts.knowledge import Knowledge
from skyspan.attempts.wanted import as_recorded, recorded
from skyspan.attempts.work import Work
from skyspan.contracts.engine import Outcome
from skyspan.contracts.provider import SupportsCarryOn, SupportsDoubt
from skyspan.contracts.store import StageRecord
from skyspan.contracts.transport import DivergedError
from skyspan.model.change import Change
from skyspan.model.error import InDoubtError
from skyspan.model.event import AttemptFailed, EffectIntended, Event, StageEnded, StagePlanned, StageStarted
from skyspan.model.lifecycle import StageStatus

Deed = Callable[[Work], Awaitable[Outcome]]


@dataclass(frozen=True, slots=True)
class CutOff:
    """An attempt without an outcome: the effect it recorded (empty: it had only read so far), and what it planned."""

    attempt: int
    effect: str = ""
    change: Mapping[str, Any] | None = None


def cut_off(events: Iterable[Event]) -> dict[str, CutOff]:
    """The attempts that `events`, all of a run's, leave without an outcome, by stage."""
    found: dict[str, CutOff] = {}
    for event in events:
        match event:
            case StageStarted():
                found[event.stage] = CutOff(event.attempt)
            case StagePlanned() if event.stage in found:
                found[event.stage] = replace(found[event.stage], change=event.change)
            case EffectIntended() if event.stage in found:
                found[event.stage] = replace(found[event.stage], effect=event.effect)
            case StageEnded() | AttemptFailed():
                found.pop(event.stage, None)
            case _:
                pass
    return found


def remember_ends(know: Knowledge, events: Iterable[Event]) -> None:
    """Let a run that is carried on know what its stages came to before."""
    board = know.board
    for event in events:
        match event:
            case AttemptFailed():
                board.lack(event.stage, "it failed")
            case StageEnded():
                record = know.record(event.stage)
                if event.status.satisfies and record is not None:
                    board.know(event.stage, record.outputs)
                elif event.status is StageStatus.SKIPPED:
                    board.lack(event.stage, event.reason or "it was skipped", event.cause)
                elif not event.status.satisfies:
                    board.lack(
                        event.stage, "it failed" if event.status is StageStatus.FAILED else "it did not end well"
                    )
            case _:
                pass


async def carry_on(work: Work, cut: CutOff, ordinary: Deed) -> Outcome:
    """Bring an attempt that was cut off to its end. Raises StageError as the verb's own deed does.

    Without an intent nothing was touched: it is made anew. What the keeper knows of is carried on, so that nothing is
    done twice. Else the provider looks: it decides between done and to be done again, unless it cannot see; then the
    stage is lost, and a person decides.
    """
    traces = work.know.means.traces
    if not cut.effect or traces is None:
        return await ordinary(work)
    trace = await traces.find(work.stage, cut.attempt)
    if trace.started and not trace.unknown:
        again = replace(work, resumed=True)
        try:
            if cut.effect in ("apply", "start"):
                if cut.change is not None and _carries_on(work):
                    return await reapply(again, cut.effect, Change.restore(cut.change))
            else:
                return await ordinary(again)
        except DivergedError:
            pass
        await traces.outlast(work.stage, cut.attempt)
    else:
        await traces.outlast(work.stage, cut.attempt)
        doubt = await _doubt(work, cut, untouched=trace.complete and not trace.started)
        if doubt:
            return _lost(work, cut, doubt)
    traces.forget(work.stage, cut.attempt)
    return await ordinary(work)


def _carries_on(work: Work) -> bool:
    record = work.record
    if record is None:
        return False
    want = recorded(work.know, record)
    return isinstance(want.provider, SupportsCarryOn) and want.provider.carries_on(want.spec)


async def _doubt(work: Work, cut: CutOff, *, untouched: bool) -> str:
    record = work.record
    if record is None or cut.effect not in ("apply", "start"):
        # Destroying and stopping what is gone or stopped is harmless.
        return ""
    want = recorded(work.know, record)
    if not isinstance(want.provider, SupportsDoubt):
        return ""
    async with as_recorded(work, want, record) as contexts:
        return await want.provider.in_doubt(want.spec, cut.effect, contexts.reading, untouched=untouched)


def _lost(work: Work, cut: CutOff, doubt: str) -> Outcome:
    name = work.know.wish.deployment.name
    again = f"skyspan retry {name} --from {work.stage}"
    error = InDoubtError(
        f"stage {work.stage} was cut off during {cut.effect}, and nobody can know whether it took effect",
        detail=doubt,
        hint=f"look at the real thing (skyspan logs {name} --stage {work.stage} shows how far it came); "
        f"if it may run again: `{again}`; if it is done: give the stage a `check` that says so, then `skyspan up`",
    )
    work.know.board.lack(work.stage, "it was lost")
    return work.ended(StageStatus.LOST, f"in doubt: {doubt}", error=error.record(), put=_unfinished(work))


def _unfinished(work: Work) -> StageRecord | None:
    """Its record as the intent left it, but never taken for what is wanted."""
    return None if work.record is None else replace(work.record, fingerprint="")
