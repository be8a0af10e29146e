"""Owns the opening of SSH connections: identity, trust, keepalive, and the words for what goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skyspan.contracts.host import Host
from skyspan.model.error import CredentialsError, HostKeyError, StageError, UnreachableError
from skyspan.transports import tcp
from skyspan.transports.host_keys import TrustedKeys, refusal, trusted_keys


@dataclass(frozen=True, slots=True)
class SshSettings:
    """How this installation speaks SSH: the user's `known_hosts`, identity files and agent socket, and limits.

    Keepalive gives up a silent connection after `keepalive_s * keepalive_count`. `sessions` commands run at once on a
    connection; OpenSSH allows 10 by default (MaxSessions), of which some are left for stopping commands.
    """

    known_hosts: Path | None = None
    identities: tuple[Path, ...] = ()
    agent: str | None = None
    connect_timeout_s: float = 15.0
    keepalive_s: float = 5.0
    keepalive_count: int = 3
    sessions: int = 8


async def connect(host: Host, settings: SshSettings, tunnel: Any | None) -> Any:
    """An authenticated `asyncssh.SSHClientConnection`, through the connection `tunnel` when one is given.

    Raises UnreachableError, HostKeyError or CredentialsError.
    """
    import asyncssh

    trusted = trusted_keys(host, settings.known_hosts)
    offered: list[Any] = []

    class Client(asyncssh.SSHClient):
        def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
            offered.append(key)
            return False

    try:
        async with asyncio.timeout(settings.connect_timeout_s), _client_keys(host, settings) as keys:
            return await asyncssh.connect(
                host.address,
                host.port,
                tunnel=tunnel,
                # The user's configuration file would make a deployment depend on who runs it.
                config=None,
                username=host.user,
                # None, as an empty list would make the library look for keys by itself.
                client_keys=keys or None,
                agent_path=None,
                known_hosts=(trusted.keys, trusted.authorities, trusted.revoked),
                server_host_key_algs=trusted.algorithms,
                client_factory=Client,
                preferred_auth="publickey",
                keepalive_interval=settings.keepalive_s,
                keepalive_count_max=settings.keepalive_count,
                login_timeout=settings.connect_timeout_s,
            )
    except (OSError, asyncssh.Error) as error:
        raise _explained(host, settings, trusted, offered, error) from error


@contextlib.asynccontextmanager
async def _client_keys(host: Host, settings: SshSettings) -> AsyncIterator[list[Any]]:
    """The host's own key; without one, those of the agent, then the user's identity files. The agent stays in reach."""
    own = _own_key(host)
    if own is not None:
        yield [own]
        return
    import asyncssh

    files = _identities(settings)
    if settings.agent is None:
        yield files
        return
    try:
        agent = await asyncssh.connect_agent(settings.agent)
    except (OSError, asyncssh.Error):
        # A socket left behind by an agent that is gone is no reason not to try the files.
        yield files
        return
    async with agent:
        yield [*await agent.get_keys(), *files]


def _own_key(host: Host) -> Any | None:
    """The key that the composition gives the host, if it does. Raises CredentialsError when it cannot be used."""
    import asyncssh

    try:
        if host.key is not None:
            # A key loses its last line break easily on its way through variables and editors.
            return asyncssh.import_private_key(host.key.reveal().strip() + "\n")
        if host.key_file is not None:
            return asyncssh.read_private_key(host.key_file)
    except OSError as error:
        raise CredentialsError(f"cannot read the key of {host.name}, {host.key_file}: {error.strerror}") from error
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        raise CredentialsError(
            f"the key of {host.name} cannot be used: {error}",
            hint="`key` and `key_file` take a key without a passphrase; one that has a passphrase belongs in an agent",
        ) from error
    return None


def _identities(settings: SshSettings) -> list[Any]:
    """Those of the user's identity files that exist and need no passphrase."""
    import asyncssh

    usable = []
    for path in settings.identities:
        try:
            usable.append(asyncssh.read_private_key(str(path)))
        except (OSError, asyncssh.KeyImportError, asyncssh.KeyEncryptionError):
            continue
    return usable


def _explained(
    host: Host, settings: SshSettings, trusted: TrustedKeys, offered: list[Any], error: Exception
) -> StageError:
    import asyncssh

    where = f"{host.name} ({host.address} port {host.port})"
    if offered:
        return refusal(host, trusted, offered[0])
    if isinstance(error, TimeoutError):
        return tcp.no_answer(where, settings.connect_timeout_s)
    if isinstance(error, socket.gaierror):
        return tcp.unresolved(where, error.strerror or "")
    if isinstance(error, OSError):
        return tcp.unreachable(where, error)
    if isinstance(error, asyncssh.PermissionDenied):
        used = "its key" if host.key or host.key_file else "the keys of the agent and the identity files"
        return CredentialsError(
            f"{where} refused {host.user} with {used}",
            detail=str(error),
            hint=f"is the public key in the authorized_keys of {host.user}, and `user` and `key` right?",
        )
    if isinstance(error, asyncssh.ChannelOpenError):
        return through_channel(where, error)
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        # A revoked key, or a certificate that is expired or for another host.
        return HostKeyError(f"the host key of {where} is refused", detail=f"{error} ({trusted.source})")
    if isinstance(error, asyncssh.KeyExchangeFailed | asyncssh.ProtocolNotSupported):
        return StageError(f"{where} and Skyspan have no SSH algorithm in common", detail=str(error))
    return UnreachableError(f"the SSH connection to {where} broke while it was set up", detail=str(error))


def through_channel(where: str, error: Any) -> UnreachableError:
    """The error for a TCP connection that the SSH server could not make for us.

    RFC 4254 5.1 has one code for every failure, so OpenSSH's words, which are those of its C library, have to do.
    """
    reason = str(error.reason)
    if "Connection refused" in reason:
        return tcp.refused(where)
    if "No route to host" in reason or "Network is unreachable" in reason:
        return tcp.no_route(where, reason)
    if "Name or service not known" in reason or "unknown host" in reason:
        return tcp.unresolved(where, reason)
    return UnreachableError(f"cannot connect to {where}", detail=reason, hint="does sshd allow TCP forwarding?")
