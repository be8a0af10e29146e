"""What went wrong, from the daemon's and the docker command's own words: typed errors with what to do next (pure)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from skyspan.contracts.transport import Completed
from skyspan.model.error import (
    CredentialsError,
    NotReadyError,
    SpecError,
    StageError,
    ToolFailedError,
    ToolMissingError,
    UnreachableError,
)
from skyspan.providers.dockerengine.commands import NO_DOCKER

LOWEST_API = (1, 40)
"""Docker 19.03: the oldest whose answers are understood."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """How an error is known, and what it is called. `{0}` in `summary` is what the pattern's group found."""

    pattern: str
    error: Callable[..., StageError]
    summary: str
    hint: str


_KINDS: Sequence[_Kind] = (
    _Kind(
        r"permission denied while trying to connect|dial unix \S+: connect: permission denied",
        CredentialsError,
        "the login may not speak to Docker",
        "add the user to the group `docker` there (and log in anew), or log in as root",
    ),
    _Kind(
        r"(no basic auth credentials|unauthorized: [^\n]*|denied: requested access[^\n]*)",
        CredentialsError,
        "the registry does not let us in: {0}",
        "docker login there as the same user, or load the image there (docker load)",
    ),
    _Kind(
        r"((?:Get|Head) \"?https?://[^/\s\"]+/v2/[^\n]*)",
        UnreachableError,
        "a registry does not answer: {0}",
        "check its name and the way there from that machine, or load the image there (docker load)",
    ),
    _Kind(
        r"(x509: [^\n]*|tls: [^\n]*|remote error: [^\n]*|server gave HTTP response to HTTPS client|"
        r"HTTP request to an HTTPS server|failed to retrieve context tls[^\n]*|[Uu]nable to load X509[^\n]*|"
        r"[Cc]ould not (?:load|read) (?:X509|CA|client)[^\n]*)",
        CredentialsError,
        "no trust between us and the daemon: {0}",
        "check `ca`, `certificate` and `key` of `engine`, and that the daemon's certificate names its address",
    ),
    _Kind(
        r"(client version \S+ is too (?:new|old)[^\n]*)",
        ToolMissingError,
        "the docker command and the daemon do not understand each other: {0}",
        "update the older of the two",
    ),
    _Kind(
        r"Cannot connect to the Docker daemon|error during connect|failed to connect to the docker API|"
        r"Is the docker daemon running",
        UnreachableError,
        "no Docker daemon answers",
        "start it (systemctl start docker), or name another one with `engine.endpoint`",
    ),
    _Kind(
        r"(No such image: \S+|pull access denied for [^\s,]+|manifest for \S+ not found|manifest unknown|"
        r"Unable to find image '[^']+')",
        SpecError,
        "an image is not there: {0}",
        "load it (docker load, docker import), or let it be fetched with `pull: missing` where a registry is reached",
    ),
    _Kind(
        r"[Pp]ool overlaps with other one|(?:networks have overlapping IPv[46])|"
        r"cannot create network \S+ \(\S+\): conflicts with",
        SpecError,
        "the subnet is taken by another network of that machine",
        "give another `subnet`; docker network inspect $(docker network ls -q) shows those in use",
    ),
    _Kind(
        r"((?:Bind for \S+ failed: )?port is already allocated|address already in use|"
        r"failed to bind (?:host )?port[^\n]*)",
        SpecError,
        "a port is taken: {0}",
        "publish another port, or stop what listens there",
    ),
    _Kind(
        r"(The container name \"[^\"]+\" is already in use|network with name \S+ already exists)",
        SpecError,
        "{0}, by somebody else",
        "choose another name, or remove the other one",
    ),
    _Kind(
        r"(no space left on device|[Dd]isk quota exceeded)",
        NotReadyError,
        "the daemon's disk is full",
        "make room there: docker system df shows what takes it, docker image prune frees what is unused",
    ),
    _Kind(
        r"(dockerfile parse error[^\n]*|[Uu]nknown instruction: \S+|Cannot locate specified Dockerfile[^\n]*|"
        r"failed to read dockerfile[^\n]*|(?:COPY|ADD) failed[^\n]*|failed to compute cache key[^\n]*|"
        r"failed to reach build target[^\n]*|target stage [^\n]*)",
        SpecError,
        "an image cannot be built as its Dockerfile says: {0}",
        "see the Dockerfile, and what .dockerignore leaves out of its context",
    ),
    _Kind(
        r"(user specified IP address[^\n]*|Address already in use|invalid [^\n]*|unknown flag: \S+)",
        SpecError,
        "the daemon refuses the settings: {0}",
        "",
    ),
)


def failed(what: str, where: str, done: Completed, words: str) -> StageError:
    """The error of a script that failed. `words` are its last ones, clean of secrets."""
    if done.exit_code == NO_DOCKER:
        return ToolMissingError(
            f"there is no docker command on {where}",
            hint="install Docker there (Debian and Ubuntu: apt-get install docker.io)",
        )
    if done.timed_out:
        return UnreachableError(f"Docker on {where} did not answer in time: {what}", detail=words)
    found = known(words)
    if found is not None:
        return type(found)(f"{what} on {where}: {found.summary}", detail=words, hint=found.hint)
    return ToolFailedError(f"{what} on {where} failed (exit status {done.exit_code})", detail=words)


def known(words: str) -> StageError | None:
    """The typed error that the words tell of; None when they tell of none that is known."""
    for kind in _KINDS:
        match = re.search(kind.pattern, words)
        if match is not None:
            group = (match.group(1) if match.re.groups else "") or ""
            return kind.error(kind.summary.format(group.strip()), hint=kind.hint)
    return None


def refuse_old(where: str, version: str, api: tuple[int, int]) -> None:
    """Raise ToolMissingError for a daemon that is too old."""
    if api < LOWEST_API:
        raise ToolMissingError(
            f"Docker {version} on {where} is too old: its API is {api[0]}.{api[1]}, "
            f"and {LOWEST_API[0]}.{LOWEST_API[1]} is needed",
            hint="install Docker 19.03 or later there",
        )
