"""Makes a StageError of what a failed command said, in the tool's own words and by the user's own file names. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from skyspan.contracts.transport import Completed
from skyspan.model.diagnostic import Diagnostic, Position, Severity
from skyspan.model.error import (
    CredentialsError,
    Retry,
    StageError,
    StateLockedError,
    ToolFailedError,
    UnreachableError,
)
from skyspan.providers.terraform.backend_lock import BackendLock, said_lock
from skyspan.providers.terraform.configuration import OVERRIDE_FILE
from skyspan.providers.terraform.parse import Cutter, Diagnosis, Moved

# Neither tool has a code for why a provider failed, so its text has to tell; these are the error codes of the clouds'
# APIs and the fixed phrases of their SDKs. What is not recognised is an ordinary failure.
_CREDENTIALS = re.compile(
    r"InvalidClientTokenId|UnrecognizedClientException|SignatureDoesNotMatch|AuthFailure|ExpiredToken|InvalidAccessKeyId"
    r"|No valid credential sources|failed to refresh cached credentials|could not find default credentials"
    r"|invalid_grant|AADSTS\d+|InvalidAuthenticationToken|AuthenticationFailed|building account|StatusCode: 401"
    r"|\b401 Unauthorized\b|Error 401\b"
)
_UNREACHABLE = re.compile(
    r"connection refused|no such host|i/o timeout|connection reset by peer|no route to host|network is unreachable"
    r"|TLS handshake timeout|context deadline exceeded|RequestLimitExceeded|Throttling|TooManyRequests"
    r"|ServiceUnavailable|StatusCode: (?:429|503)|Error (?:429|503)\b"
)
_LOCKED = "Error acquiring the state lock"
_NOT_INSTALLED = re.compile(r"(?:tofu|terraform) init\b")

_HINTS = MappingProxyType(
    {
        "No value for required variable": "give it a value under `variables:`",
        "Invalid value for input variable": "correct it under `variables:`",
        "Failed to query available provider packages": "check the network, or set `terraform_config` "
        "to a CLI configuration file that names a provider mirror (provider_installation)",
        "Failed to save state": "nothing is lost: the tool saved it beside itself, and the next plan takes it up",
        "Instance cannot be destroyed": "its `lifecycle` block says prevent_destroy",
    }
)


@dataclass(frozen=True, slots=True)
class Sources:
    """How the tool's file names map back: `root` is the root module in the composition, `private` our own files."""

    root: str
    private: str

    def position(self, diagnosis: Diagnosis) -> Position | None:
        """Where the diagnostic points, by the user's file; None for nowhere or for a file of ours."""
        if not diagnosis.file or diagnosis.file.startswith(self.private):
            return None
        path = posixpath.normpath(posixpath.join(self.root, diagnosis.file))
        if posixpath.basename(path) == OVERRIDE_FILE:
            return Position("override")
        return Position(path, diagnosis.line, diagnosis.column)


def rendered(diagnosis: Diagnosis, sources: Sources) -> str:
    """The diagnostic for people: place, summary, source line with caret, detail."""
    where = sources.position(diagnosis)
    severity = Severity.WARNING if diagnosis.severity == "warning" else Severity.ERROR
    # Our variables file holds secrets, one a line: its lines are never shown.
    excerpt = diagnosis.code if where and where.line else ""
    place = where or Position(diagnosis.address or "variables" if diagnosis.file else diagnosis.address or sources.root)
    detail = "\n".join(part for part in (diagnosis.context and f"in {diagnosis.context}", diagnosis.detail) if part)
    return Diagnostic("terraform", diagnosis.summary, place, severity, detail, excerpt=excerpt).render()


def needs_init(diagnoses: Sequence[Diagnosis]) -> bool:
    """Whether the tool asks for `init`."""
    return any(_NOT_INSTALLED.search(f"{item.summary} {item.detail}") for item in _errors(diagnoses))


def is_stale(diagnoses: Sequence[Diagnosis]) -> bool:
    """Whether the saved plan no longer fits the state."""
    summaries = ("Saved plan is stale", "Saved plan does not match the given state")
    return any(item.summary in summaries for item in diagnoses)


def failure(
    tool: str,
    verb: str,
    completed: Completed,
    diagnoses: Sequence[Diagnosis],
    sources: Sources,
    lock: BackendLock | None = None,
) -> StageError:
    """The error of a command that failed, of the class that says whether trying again can help.

    `lock` is the one that it met at our own endpoint; of another backend's the tool's own words tell.
    """
    errors = _errors(diagnoses)
    if completed.timed_out:
        return ToolFailedError(f"{tool} {verb} did not end in time", detail=_last_words(completed))
    if not errors:
        how = f"killed by signal {-completed.exit_code}" if completed.exit_code < 0 else f"exit {completed.exit_code}"
        retry = Retry.LATER if completed.exit_code < 0 else Retry.NEVER
        return ToolFailedError(f"{tool} {verb} failed ({how})", detail=_last_words(completed), retry=retry)
    first = errors[0]
    where = sources.position(first)
    summary = f"{tool} {verb}: {first.summary}" + (f" ({_short(where)})" if where else "")
    summary += f" and {len(errors) - 1} more" if len(errors) > 1 else ""
    detail = "\n".join(rendered(item, sources) for item in errors)
    said = "\n".join(f"{item.summary}\n{item.detail}" for item in errors)
    if _LOCKED in said and (holder := lock or said_lock(said)):
        return _locked(tool, verb, detail, holder)
    hint = next((text for start, text in _HINTS.items() if first.summary.startswith(start)), "")
    if "Failed to create local state file" in said:
        hint = "see whether the disk is full; the state that the tool told instead is taken up by the next plan"
    if _CREDENTIALS.search(said):
        hint = "check the credentials under `env:` or in the environment: the provider does not accept them"
        return CredentialsError(summary, detail=detail, hint=hint)
    if _UNREACHABLE.search(said):
        return UnreachableError(summary, detail=detail, hint=hint)
    return ToolFailedError(summary, detail=detail, hint=hint, retry=Retry.LATER if _LOCKED in said else Retry.NEVER)


def _locked(tool: str, verb: str, detail: str, lock: BackendLock) -> StateLockedError:
    hint = "wait for it to end, or stop it in order by `skyspan cancel`"
    if not lock.skyspan:
        hint = "wait for them to end; once you are sure that they died without giving it back, in the source folder: "
        hint += f"{tool} init && {tool} force-unlock {lock.id}"
    return StateLockedError(f"{tool} {verb}: the state is locked by {lock}", detail=detail, hint=hint)


def lost(error: StageError, known: frozenset[str], made: Sequence[Moved], begun: Sequence[Moved]) -> StageError:
    """The error of a killed apply, with what it has left in the real world and not in the state.

    The tools push their state at most every 20 seconds (hook_state.go), so what was made since is known by their
    messages alone. The next plan imports what was made and looks for what was under way.
    """
    forgotten = [f"{step.address} ({step.note})" for step in made if step.address not in known]
    doubtful = [step.address for step in begun if step.address not in known]
    if not forgotten and not doubtful:
        return error
    said = [error.detail]
    said += ["made, but not in the state:", *(f"  {item}" for item in forgotten)] if forgotten else []
    said += ["under way, perhaps made:", *(f"  {item}" for item in doubtful)] if doubtful else []
    hint = "`skyspan plan` shows what of it will be imported and what has to be settled"
    detail = "\n".join(part for part in said if part)
    return type(error)(error.summary, detail=detail, hint=hint, retry=Retry.LATER)


def _last_words(completed: Completed) -> str:
    """What it said last, in its messages' own words; standard output is JSON, which is for nobody to read."""
    if completed.stderr.strip():
        return replace(completed, stdout=b"").last_words()
    messages = list(Cutter().feed(completed.stdout + b"\n"))
    return "\n".join(message.text for message in messages[-10:])


def _errors(diagnoses: Sequence[Diagnosis]) -> list[Diagnosis]:
    """Each error once: plan and apply may both tell it."""
    return list(dict.fromkeys(item for item in diagnoses if item.severity == "error"))


def _short(where: Position) -> str:
    return f"{where.file}:{where.line}" if where.line else where.file
