"""What an attempt needs from outside to give a provider its context."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.contracts.engine import Journal
from skyspan.contracts.host import Host
from skyspan.model.address import StageAddress


@dataclass(frozen=True, slots=True)
class ContextRequest:
    """Which attempt wants a context, and which hosts it may reach. `deadline` is a monotonic time or None.

    `recorded` tells whether the stage is on record: one that is not has kept nothing yet, as keeping anything comes
    after the record of the intent to.
    """

    address: StageAddress
    folder: Path
    hosts: Mapping[str, Host]
    attempt: int
    deadline: float | None
    journal: Journal
    recorded: bool = True


@dataclass(frozen=True, slots=True)
class Contexts:
    """The two contexts of one attempt: for looking and for acting."""

    reading: ReadContext
    writing: StageContext


class ContextFactory(Protocol):
    """Makes contexts; wired by the composition root."""

    def enter(self, request: ContextRequest) -> AbstractAsyncContextManager[Contexts]:
        """The contexts while the attempt goes on; on leaving, its last log lines are given out."""
        ...


class SourceDigests(Protocol):
    """Digests of the files that a stage reads."""

    async def digest(self, folder: Path, sources: tuple[str, ...]) -> str:
        """One digest of the content of `sources` below `folder`; a missing one counts as absent, not as an error."""
        ...
