"""The exception tree. Everything Skyspan raises on purpose is drawn here.

SkyspanError
├── UsageError                 the command line or a setting is wrong             exit 2
├── CompositionError           the composition has errors; carries diagnostics    exit 2
│   └── PreflightError         something the run needs is missing here            exit 1
├── RefusedError               somebody else holds the deployment                 exit 4
├── PlanMismatchError          an apply would do something else than its plan     exit 1
├── NotFoundError              no such deployment, run, stage or secret           exit 1
├── StoreError                 the store cannot be read or written                exit 1
│   ├── StoreCorruptError      what was read cannot be what was written
│   ├── StoreUnavailableError  no disk space, no permission, no connection
│   └── FencedError            this writer's lease was taken over
├── SealError                  a sealed value cannot be opened or made            exit 1
└── StageError                 a stage failed; `retry` says whether trying again can help
    ├── SpecError              the settings cannot work, found before or while running
    ├── ToolMissingError       an external tool is absent or of a wrong version
    ├── ToolFailedError        an external tool ran and failed
    ├── UnreachableError       a host, an address or a service did not answer
    ├── HostKeyError           a host's key is unknown or not the expected one
    ├── CredentialsError       somebody refused our credentials
    ├── OutputError            outputs are missing or not of their declared type
    ├── NotReadyError          applied, but did not become healthy in time
    ├── StateLockedError       somebody else holds the lock on a stage's state
    ├── InDoubtError           an effect was cut off, and nobody can know whether it took place
    ├── StageTimeoutError      the stage did not end within its `timeout`
    └── InternalError          a provider, or Skyspan itself, raised what it should not: a bug
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import ClassVar

from skyspan.model.diagnostic import Diagnostic


class Retry(StrEnum):
    """Whether the engine may try a failed stage again."""

    NEVER = "never"
    LATER = "later"
    NOW = "now"


class SkyspanError(Exception):
    """What failed (`summary`), the evidence (`detail`) and what to do next (`hint`)."""

    exit_status: ClassVar[int] = 1

    def __init__(self, summary: str, *, detail: str = "", hint: str = "") -> None:
        super().__init__(summary)
        self.summary = summary
        self.detail = detail
        self.hint = hint

    def __str__(self) -> str:
        return "\n".join(part for part in (self.summary, self.detail, self.hint) if part)


class UsageError(SkyspanError):
    """The command line, an input or a setting is wrong."""

    exit_status = 2


class CompositionError(SkyspanError):
    """The composition has errors: all of them, as diagnostics."""

    exit_status = 2

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        super().__init__("\n".join(d.render() for d in diagnostics) or "invalid composition")
        self.diagnostics = tuple(diagnostics)


class PreflightError(CompositionError):
    """Something the run needs is missing on this machine: tools, files, permissions. Nothing was touched."""

    exit_status = 1


class RefusedError(SkyspanError):
    """Somebody else holds the deployment; the summary names who, what and since when."""

    exit_status = 4


class PlanMismatchError(SkyspanError):
    """What would be applied differs by meaning from the plan that was reviewed."""


class NotFoundError(SkyspanError):
    """No such deployment, run, stage, secret or plan file."""


class StoreError(SkyspanError):
    """The store cannot be read or written."""


class StoreCorruptError(StoreError):
    """What was read cannot be what was written."""


class StoreUnavailableError(StoreError):
    """No disk space, no permission or no connection."""


class FencedError(StoreError):
    """This writer's lease was taken over by a newer epoch; nothing was written."""


class SealError(SkyspanError):
    """A sealed value cannot be opened or made: wrong key, damaged or moved ciphertext."""


class StageError(SkyspanError):
    """A stage failed. Providers raise nothing else on purpose; fields survive storage."""

    default_retry: ClassVar[Retry] = Retry.NEVER

    def __init__(self, summary: str, *, detail: str = "", hint: str = "", retry: Retry | None = None) -> None:
        super().__init__(summary, detail=detail, hint=hint)
        self.retry = retry if retry is not None else self.default_retry

    @property
    def kind(self) -> str:
        """The class name, as it is stored and shown."""
        return type(self).__name__

    def record(self) -> dict[str, str]:
        """The fields as they are stored in events."""
        return {
            "kind": self.kind,
            "summary": self.summary,
            "detail": self.detail,
            "hint": self.hint,
            "retry": self.retry.value,
        }

    @classmethod
    def restore(cls, record: Mapping[str, str]) -> StageError:
        """The error that `record` came from, as an instance of its own class where that still exists."""
        known = {kind.__name__: kind for kind in _family(StageError)}
        kind = known.get(record.get("kind", ""), StageError)
        return kind(
            record.get("summary", "failed"),
            detail=record.get("detail", ""),
            hint=record.get("hint", ""),
            retry=Retry(record.get("retry", Retry.NEVER.value)),
        )


class SpecError(StageError):
    """The stage's settings cannot work."""


class ToolMissingError(StageError):
    """An external tool is absent or of a wrong version; the hint says how to get it."""


class ToolFailedError(StageError):
    """An external tool ran and failed; the detail holds its own last words."""


class UnreachableError(StageError):
    """A host, an address or a service did not answer."""

    default_retry = Retry.LATER


class HostKeyError(StageError):
    """A host's key is unknown or not the expected one; the hint says how to accept it."""


class CredentialsError(StageError):
    """Somebody refused our credentials."""


class OutputError(StageError):
    """Outputs are missing or not of their declared type."""


class NotReadyError(StageError):
    """Applied, but it did not become healthy before its deadline; the detail names the failing leg."""

    default_retry = Retry.LATER


class StateLockedError(StageError):
    """Somebody else holds the lock on a stage's state; the summary names who and since when."""

    default_retry = Retry.LATER


class InDoubtError(StageError):
    """An effect was cut off, and nobody can know whether it took place; the hint says how to settle it."""


class StageTimeoutError(StageError):
    """The stage did not end within its `timeout`."""


class InternalError(StageError):
    """A provider, or Skyspan itself, raised what it should not: a bug. The detail holds the traceback's end."""


def _family(kind: type[StageError]) -> list[type[StageError]]:
    return [kind, *(member for child in kind.__subclasses__() for member in _family(child))]
