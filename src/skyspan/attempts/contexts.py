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
from skyspan.contracts.transport import StopLadder
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
    ladder: StopLadder | None = None
    """How the stage wants its commands stopped; None leaves it to the provider."""
    resumed: bool = False
    """Another engine began this attempt, and what it started is to be found again."""


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


@dataclass(frozen=True, slots=True)
class Trace:
    """What is known of the commands that an attempt started on this machine.

    `unknown` means that nobody can know how one of them ended; `complete` that all that were started are known.
    """

    started: bool = False
    unknown: bool = False
    complete: bool = False


class Traces(Protocol):
    """Knows which commands an engine that was cut off has left behind."""

    async def find(self, stage: str, attempt: int) -> Trace:
        """What is known of an attempt's commands."""
        ...

    async def outlast(self, stage: str, attempt: int) -> None:
        """Wait until none of them runs any more; cancelling stops them in order."""
        ...

    def forget(self, stage: str, attempt: int) -> None:
        """They are not asked for again."""
        ...


class SourceDigests(Protocol):
    """Digests of the files that a stage reads."""

    async def digest(self, folder: Path, sources: tuple[str, ...]) -> str:
        """One digest of the content of `sources` below `folder`; a missing one counts as absent, not as an error."""
        ...
