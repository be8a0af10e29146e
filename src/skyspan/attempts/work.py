"""One attempt's work: which stage of which run, where it says what happens, and until when."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skyspan.attempts.contexts import ContextRequest, Contexts
from skyspan.attempts.knowledge import Knowledge
from skyspan.contracts.context import ReadContext
from skyspan.contracts.engine import Journal, Outcome
from skyspan.contracts.host import Host
from skyspan.contracts.store import StageRecord
from skyspan.contracts.transport import StopLadder
from skyspan.model.address import StageAddress
from skyspan.model.change import Change
from skyspan.model.error import StageError
from skyspan.model.event import AttemptFailed, EffectIntended, StageEnded, StagePlanned
from skyspan.model.lifecycle import StageStatus
from skyspan.model.value import OutputValue, concealed, secrets_in


@dataclass(frozen=True, slots=True)
class Work:
    """An attempt at a stage. `deadline` is a monotonic time or None; `resumed` that another engine began it, and what
    it started is to be found again."""

    know: Knowledge
    stage: str
    attempt: int
    journal: Journal
    deadline: float | None
    resumed: bool = False

    @property
    def address(self) -> StageAddress:
        """The stage's address."""
        return self.know.wish.deployment.stage(self.stage)

    @property
    def record(self) -> StageRecord | None:
        """What is on record of the stage."""
        return self.know.record(self.stage)

    def contexts(self, hosts: Mapping[str, Host], folder: Path | None = None) -> AbstractAsyncContextManager[Contexts]:
        """The provider's contexts for this attempt."""
        where = folder or self.know.wish.folder
        request = ContextRequest(
            self.address,
            where,
            hosts,
            self.attempt,
            self.deadline,
            self.journal,
            recorded=self.record is not None,
            ladder=self._ladder(),
            resumed=self.resumed,
        )
        return self.know.means.contexts.enter(request)

    def _ladder(self) -> StopLadder | None:
        declared = self.know.declared(self.stage)
        if declared is None or declared.cancel is None:
            return None
        return StopLadder(declared.cancel.first, declared.cancel.second)

    def planned(self, change: Change) -> None:
        """Say what would be done."""
        self.journal.note(StagePlanned(self.stage, self.attempt, change.record()))

    async def intend(self, effect: str, record: StageRecord) -> None:
        """Make it durable that the real world is about to be touched, and what is needed to clean up after that."""
        await self.journal.record(EffectIntended(self.stage, self.attempt, effect), put=self.know.remember(record))

    def ended(self, status: StageStatus, reason: str = "", **more: Any) -> Outcome:
        """The stage's end; `put` and `removed` go with it into the store."""
        put, removed = more.pop("put", None), more.pop("removed", None)
        if put is not None:
            self.know.remember(put)
        if removed is not None:
            self.know.forget(self.stage)
        return Outcome(StageEnded(self.stage, self.attempt, status, reason=reason, **more), put, removed)

    def failed(self, error: StageError, put: StageRecord | None = None) -> Outcome:
        """The attempt's failure; the engine decides whether there is another."""
        self.know.board.lack(self.stage, "it failed")
        if put is not None:
            self.know.remember(put)
        return Outcome(AttemptFailed(self.stage, self.attempt, error.record()), put)


def conceal(values: object, ctx: ReadContext) -> None:
    """From now on every secret inside `values` is masked wherever it appears."""
    for secret in secrets_in(values):
        ctx.report.conceal(secret)


def conceal_outputs(outputs: Mapping[str, OutputValue], ctx: ReadContext) -> None:
    """From now on the sensitive outputs are masked wherever they appear."""
    for output in outputs.values():
        conceal(concealed(output.value) if output.sensitive else output.value, ctx)
