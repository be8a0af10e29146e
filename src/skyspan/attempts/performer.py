"""Performs attempts: picks what the run's verb does to a stage, and turns failures into outcomes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from skyspan.attempts.converge import converge
from skyspan.attempts.knowledge import Knowledge
from skyspan.attempts.look import check, plan
from skyspan.attempts.suspend import start, stop
from skyspan.attempts.teardown import destroy, remove
from skyspan.attempts.work import Work
from skyspan.contracts.engine import Journal, Outcome
from skyspan.model.error import StageError
from skyspan.model.lifecycle import Verb

Deed: TypeAlias = Callable[[Work], Awaitable[Outcome]]


class StagePerformer:
    """Implements `contracts.engine.Performer` for one run."""

    def __init__(self, know: Knowledge) -> None:
        self._know = know

    async def perform(self, stage: str, attempt: int, journal: Journal) -> Outcome:
        """Do what the run's verb means for the stage."""
        know = self._know
        outline = know.outline(stage)
        deadline = None if outline.timeout_s is None else know.means.clock.monotonic() + outline.timeout_s
        work = Work(know, stage, attempt, journal, deadline)
        try:
            return await _deed(know.verb, removed=outline.removed)(work)
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
        case Verb.UP:
            return remove if removed else converge
