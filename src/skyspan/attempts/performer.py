"""Performs attempts: picks what the run's verb does to a stage, and turns failures into outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from skyspan.attempts.converge import converge
from skyspan.attempts.knowledge import Knowledge
from skyspan.attempts.look import check, plan
from skyspan.attempts.mend import mend
from skyspan.attempts.settle import CutOff, Deed, carry_on
from skyspan.attempts.suspend import start, stop
from skyspan.attempts.teardown import destroy, remove
from skyspan.attempts.work import Work
from skyspan.contracts.engine import Journal, Outcome
from skyspan.model.error import StageError
from skyspan.model.lifecycle import Verb


class StagePerformer:
    """Implements `contracts.engine.Performer` for one run; `cut` are attempts that another engine was cut off in."""

    def __init__(self, know: Knowledge, cut: Mapping[str, CutOff] = MappingProxyType({})) -> None:
        self._know, self._cut = know, cut

    async def perform(self, stage: str, attempt: int, journal: Journal) -> Outcome:
        """Do what the run's verb means for the stage."""
        know = self._know
        outline = know.outline(stage)
        deadline = None if outline.timeout_s is None else know.means.clock.monotonic() + outline.timeout_s
        work = Work(know, stage, attempt, journal, deadline)
        deed, cut = _deed(know.verb, removed=outline.removed), self._cut.get(stage)
        try:
            if cut is not None and cut.attempt == attempt:
                return await carry_on(work, cut, deed)
            return await deed(work)
        except StageError as error:
            return work.failed(error)


def _deed(verb: Verb, *, removed: bool) -> Deed:
    match verb:
        case Verb.PLAN:
            return plan
        case Verb.CHECK:
            return check
        case Verb.STOP:
            return stop
        case Verb.START:
            return start
        case Verb.DESTROY:
            return destroy
        case Verb.REPAIR:
            return mend
        case Verb.UP:
            return remove if removed else converge
