"""What can go wrong with a tailnet, each by a name of its own, and how the tool's words are told apart (pure).

The texts are those of tailscale 1.102 (cmd/tailscale/cli/up.go), of Tailscale's control server, and of headscale 0.29
(hscontrol/types/preauth_key.go, hscontrol/state/tags.go, hscontrol/auth.go).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from skyspan.model.error import (
    CredentialsError,
    NotReadyError,
    Retry,
    SpecError,
    StageError,
    ToolFailedError,
    ToolMissingError,
    UnreachableError,
)
from skyspan.model.secret import without_auth_keys


class UnsupportedOSError(SpecError):
    """Tailscale cannot be installed on this operating system."""


class InstallFailedError(ToolFailedError):
    """The installation ran and failed."""

    default_retry: ClassVar[Retry] = Retry.LATER


class NotInstalledError(ToolMissingError):
    """Tailscale is not there, or too old, and the settings say not to install it."""


class DaemonUnavailableError(UnreachableError):
    """tailscaled does not answer on the host, even after its service was started."""


class AuthKeyMissingError(CredentialsError):
    """The environment variable that should hold the auth key is not set."""


class AuthKeyInvalidError(CredentialsError):
    """The server does not know the auth key."""


class AuthKeyExpiredError(CredentialsError):
    """The auth key has expired."""


class AuthKeyUsedError(CredentialsError):
    """The auth key was good for one host, and that has joined."""


class TagsNotPermittedError(CredentialsError):
    """The server does not let the host have the tags that it asked for."""


class TagMismatchError(SpecError):
    """The host is in the tailnet with other tags than wanted."""


class WrongTailnetError(SpecError):
    """The host is a member of another tailnet, into which somebody else put it."""


class PrefsConflictError(ToolFailedError):
    """The host has settings of somebody else's that joining would undo."""


class ControlUnreachableError(UnreachableError):
    """The host cannot reach the control server."""


class MemberExpiredError(CredentialsError):
    """The server keeps an old entry of this host, which has expired and cannot be renewed by a key."""


class JoinTimeoutError(NotReadyError):
    """The host did not come up in the tailnet in time."""


class ApprovalRequiredError(NotReadyError):
    """An administrator has to approve the host."""


class NotJoinedError(NotReadyError):
    """The host is no member of the tailnet."""


class NameTakenError(SpecError):
    """Another member has the host's name, so the tailnet gave it another."""


class WayLostError(NotReadyError):
    """What the host sends to members does not go into the tunnel: the interface is down, or without its routes."""


class RoutesNotApprovedError(NotReadyError):
    """The server has not approved the routes that the host advertises."""


@dataclass(frozen=True, slots=True)
class JoinFailure:
    """What `tailscale up` left behind: its words, the daemon's state after it, and whose it was."""

    host: str
    said: str
    state: str = ""
    health: tuple[str, ...] = ()
    variable: str = ""
    tags: tuple[str, ...] = ()
    server: str = ""


_TOLD: tuple[tuple[re.Pattern[str], type[StageError]], ...] = (
    (re.compile(r"failed to connect to local|doesn't appear to be running"), DaemonUnavailableError),
    (re.compile(r"authkey expired|API key \S+ has expired|key expired"), AuthKeyExpiredError),
    (re.compile(r"authkey already used"), AuthKeyUsedError),
    (re.compile(r"server says NodeKeyExpired"), MemberExpiredError),
    (re.compile(r"requested tags .* (?:are|is) invalid or not permitted"), TagsNotPermittedError),
    (
        re.compile(
            r"invalid key|invalid authkey|invalid pre auth key|API key .*not valid|API key .*does not exist"
            r"|unable to validate API key|AuthKey not found|failed to parse auth-key"
        ),
        AuthKeyInvalidError,
    ),
    (re.compile(r"requires mentioning all|can't change --login-server without --force-reauth"), PrefsConflictError),
)
_UNREACHED = re.compile(
    r"connection refused|no route to host|i/o timeout|no such host|network is unreachable|fetch control key|"
    r"the (?:Tailscale )?coordination server|network is down|context deadline exceeded"
)
_NAMED = "timeout waiting for Tailscale service to enter a Running state"


def kind_of(failure: JoinFailure) -> type[StageError]:
    """Which error the words are."""
    told = "\n".join((failure.said, *failure.health))
    for pattern, kind in _TOLD:
        if pattern.search(told):
            return kind
    if failure.state == "NeedsMachineAuth":
        return ApprovalRequiredError
    if _UNREACHED.search(failure.said) or any(_UNREACHED.search(line) for line in failure.health):
        return ControlUnreachableError
    return JoinTimeoutError if _NAMED in failure.said else ToolFailedError


def join_error(failure: JoinFailure) -> StageError:
    """The typed error of a join that failed, with the tool's words and what to do next; no key shows."""
    kind = kind_of(failure)
    summary, hint = _words(kind, failure)
    said = [failure.said.strip()]
    if failure.state:
        said.append(f"the daemon says: {failure.state}")
    said += [f"health: {line}" for line in failure.health]
    return kind(summary, detail=without_auth_keys("\n".join(part for part in said if part)), hint=hint)


def _words(kind: type[StageError], failure: JoinFailure) -> tuple[str, str]:
    host, variable = failure.host, failure.variable
    server = failure.server or "the control server"
    tags = ", ".join(failure.tags) or "none"
    words: dict[type[StageError], tuple[str, str]] = {
        DaemonUnavailableError: (
            f"tailscaled does not answer on {host}",
            f"on {host}: systemctl status tailscaled; journalctl -u tailscaled",
        ),
        AuthKeyExpiredError: (
            f"the auth key of {variable} has expired: {host} cannot join with it",
            f"make a new auth key and put it into {variable}; hosts that have joined are not affected",
        ),
        AuthKeyUsedError: (
            f"the auth key of {variable} was good for one host only and is used: {host} cannot join with it",
            f"make a reusable auth key (or one per host) and put it into {variable}",
        ),
        AuthKeyInvalidError: (
            f"the auth key of {variable} is not valid for {server}: {host} cannot join with it",
            f"is {variable} the whole key, of this tailnet, neither revoked nor a used one-time key?",
        ),
        TagsNotPermittedError: (
            f"{host} may not have the tags {tags}",
            "let the policy's tagOwners allow them for the key's owner, or make a key that carries them and set "
            "`tag_source: key`",
        ),
        PrefsConflictError: (
            f"{host} has settings that joining would undo",
            f"on {host}: tailscale debug prefs; then `tailscale logout`, and bring it up again",
        ),
        MemberExpiredError: (
            f"{server} keeps an expired entry of {host}, which no key can renew",
            f"delete that entry (headscale nodes delete --identifier ID) on it, and bring {host} up again",
        ),
        ApprovalRequiredError: (
            f"{host} waits for an administrator's approval",
            "approve it in the admin console (or use a pre-approved key), and bring it up again",
        ),
        ControlUnreachableError: (
            f"{host} cannot reach {server}",
            f"on {host}: can it resolve and reach {server}, through its firewall and proxies?",
        ),
        JoinTimeoutError: (
            f"{host} did not come up in the tailnet in time",
            "look at the daemon's state and health above; give it more time with `join_within`",
        ),
    }
    return words.get(kind, (f"tailscale up failed on {host}", f"on {host}: tailscale status; tailscale debug prefs"))
