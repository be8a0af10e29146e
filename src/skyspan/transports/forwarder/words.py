"""What a failure of a connection or a forward is, told from what the system and the SSH library raise: pure."""

from __future__ import annotations

import errno
import socket

from skyspan.contracts.forwarding import Forward, Place, Trouble, TroubleKind
from skyspan.model.error import CredentialsError, HostKeyError, StageError

_ADMINISTRATIVELY_PROHIBITED = 1
"""RFC 4254 section 5.1: the server has a rule against such a channel."""


def shown(place: Place) -> str:
    """`address:port`, an IPv6 address in brackets."""
    address, port = place
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def not_listening_here(place: Place, error: OSError) -> Trouble:
    """Why this machine does not listen there."""
    where = shown(place)
    if error.errno == errno.EADDRINUSE:
        return Trouble(
            TroubleKind.PORT_TAKEN,
            f"{where} is taken on this machine: something else listens there",
            hint=f"`ss -ltnp 'sport = :{place[1]}'` shows what; end it, or listen on another port",
        )
    if error.errno in {errno.EACCES, errno.EPERM}:
        return Trouble(
            TroubleKind.PORT_FORBIDDEN,
            f"{where} may not be listened on by this user",
            detail=error.strerror or "",
            hint="ports below 1024 are for root: take a higher one",
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return Trouble(
            TroubleKind.NO_SUCH_ADDRESS,
            f"this machine has no address {place[0]} to listen on",
            hint="127.0.0.1 is for this machine alone, 0.0.0.0 for all of its addresses",
        )
    return Trouble(TroubleKind.PORT_FORBIDDEN, f"cannot listen on {where}", detail=error.strerror or str(error))


def bind_refused(forward: Forward, host: str) -> Trouble:
    """SSH says no more than that: RFC 4254 section 7.1 has no reason for it."""
    return Trouble(
        TroubleKind.BIND_REFUSED,
        f"{host} refused to listen on {shown(forward.listen)}",
        hint=f"is the port taken there, below 1024 without root, or forwarding off (AllowTcpForwarding, PermitListen) "
        f"in the sshd_config of {host}?",
    )


def not_led_on(target: Place, host: str, code: int, reason: str) -> Trouble:
    """Why the host's sshd made no connection to `target`: the code of RFC 4254 section 5.1 and sshd's words."""
    where = shown(target)
    if code == _ADMINISTRATIVELY_PROHIBITED:
        return Trouble(
            TroubleKind.FORWARDING_FORBIDDEN,
            f"the sshd of {host} forbids connections to {where}",
            detail=reason,
            hint=f"allow it in the sshd_config of {host}: AllowTcpForwarding, PermitOpen",
        )
    lower = reason.lower()
    if "not known" in lower or "unknown host" in lower or "name resolution" in lower:
        return Trouble(
            TroubleKind.UNKNOWN_HOST, f"{host} does not know a host called {target[0]}", detail=reason, hint="its DNS?"
        )
    if "refused" in lower:
        return target_refused(target, f"as seen from {host}", reason)
    return Trouble(TroubleKind.UNREACHABLE, f"{host} cannot reach {where}", detail=reason, hint="routes and firewalls?")


def not_reached_here(target: Place, error: OSError) -> Trouble:
    """Why this machine made no connection to `target`."""
    if isinstance(error, socket.gaierror):
        return Trouble(
            TroubleKind.UNKNOWN_HOST, f"this machine does not know a host called {target[0]}", error.strerror or ""
        )
    if isinstance(error, ConnectionRefusedError):
        return target_refused(target, "as seen from this machine", "")
    return Trouble(
        TroubleKind.UNREACHABLE, f"this machine cannot reach {shown(target)}", error.strerror or str(error) or "silence"
    )


def target_refused(target: Place, whence: str, detail: str) -> Trouble:
    """Somebody is there, but nothing listens."""
    return Trouble(
        TroubleKind.TARGET_REFUSED,
        f"{shown(target)} refuses connections, {whence}",
        detail=detail,
        hint="does the service run, and on this port?",
    )


def not_connected(host: str, trouble: Trouble | None) -> Trouble:
    """There is no SSH connection to lead anything over."""
    if trouble is not None:
        return trouble
    return Trouble(TroubleKind.UNREACHABLE, f"there is no SSH connection to {host} at the moment")


def connecting_failed(error: StageError) -> Trouble:
    """Why there is no SSH connection."""
    kind = TroubleKind.UNREACHABLE
    if isinstance(error, HostKeyError):
        kind = TroubleKind.HOST_KEY
    elif isinstance(error, CredentialsError):
        kind = TroubleKind.CREDENTIALS
    elif "cannot be resolved" in error.summary:
        kind = TroubleKind.UNKNOWN_HOST
    return Trouble(kind, error.summary, error.detail, error.hint)
