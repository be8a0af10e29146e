"""The commands that run on a gateway, as values: pure."""

from __future__ import annotations

from skyspan.contracts.transport import Command, Effect
from skyspan.model.secret import Secret
from skyspan.networks.ipsec import looking, scripts
from skyspan.networks.ipsec.config import daemon_settings
from skyspan.networks.ipsec.link import CHILD, EndState, table_name
from skyspan.networks.peers import ROUTE_PROTOCOL, OwnRoute

TAKEN = 90
"""Exit status of `converge_command` when the name of the link is somebody else's."""

NO_INTERFACE = 91
"""Exit status of `converge_command` when the kernel has no XFRM interface."""

FOREIGN = 93
"""Exit status when loading would take a connection of others out of the daemon."""

NO_DAEMON = 94
"""Exit status of `converge_command` when there is no charon to start."""

NOT_OURS = 95
"""Exit status of `restart_command` when the daemon is somebody else's and well."""

LOOK_TIMEOUT_S = 30.0
CHANGE_TIMEOUT_S = 60.0
PROBE_TIMEOUT_S = 5.0

PATIENCE_S = 3
"""How long one attempt to make a session is waited for: an answer takes milliseconds, and hammering wedges charon."""


def _shell(script: str, names: tuple[str, str, bool], arguments: tuple[str, ...]) -> tuple[str, ...]:
    """`names` are those of link and owner, and whether root must be asked for."""
    name, owner, sudo = names
    argv = ("sh", "-euc", scripts.PLACES + script, "skyspan", name, owner, table_name(name), *arguments)
    return ("sudo", "-n", *argv) if sudo else argv


def _names(end: EndState) -> tuple[str, str, bool]:
    return end.name, end.owner, end.sudo


def survey_command(end: EndState, *, probe: bool) -> Command:
    """Look at an end; with `probe`, ping the other one first, and read what the daemon said."""
    far = " ".join(end.peer_addresses)
    there = " ".join(map(str, end.there))
    arguments = (far if probe else "", " ".join(end.addresses), str(end.mtu), far, there)
    return Command(_shell(looking.SURVEY, _names(end), arguments), timeout_s=LOOK_TIMEOUT_S, effect=Effect.READ)


def probe_command(end: EndState) -> Command:
    """One ping to every inner address of the other end, and a look whether what comes through is forwarded."""
    arguments = (" ".join(end.peer_addresses), " ".join(end.addresses), " ".join(map(str, end.families)))
    return Command(
        _shell(looking.PROBE, (end.name, end.owner, False), arguments), timeout_s=PROBE_TIMEOUT_S, effect=Effect.READ
    )


def converge_command(end: EndState, files: Secret, addresses: tuple[str, ...], routes: tuple[OwnRoute, ...]) -> Command:
    """Make the end what it is to be; the end that calls makes the session."""
    arguments = (
        " ".join(map(str, end.families)),
        end.firewall,
        end.plane,
        str(end.number),
        str(end.mtu),
        " ".join(f"{address}/{128 if ':' in address else 32}" for address in addresses),
        "".join(f"{route.prefix} {route.source}".rstrip() + "\n" for route in routes),
        str(ROUTE_PROTOCOL),
        daemon_settings(end.plane),
        "yes" if end.initiates else "no",
        CHILD,
        str(PATIENCE_S),
        end.admitted_text,
        f"{end.confirm_within:g}",
    )
    return Command(_shell(scripts.CONVERGE, _names(end), arguments), stdin=files, timeout_s=CHANGE_TIMEOUT_S)


def confirm_command(end: EndState) -> Command:
    """Say that the host can still be reached, so that it keeps what was changed."""
    return Command(_shell(scripts.CONFIRMED, _names(end), ()), timeout_s=LOOK_TIMEOUT_S)


def initiate_command(end: EndState) -> Command:
    """End all sessions and make one."""
    return Command(_shell(scripts.INITIATE, _names(end), (CHILD, str(PATIENCE_S))), timeout_s=CHANGE_TIMEOUT_S)


def restart_command(end: EndState) -> Command:
    """Restart the daemon if it was started for links."""
    return Command(_shell(scripts.RESTART, _names(end), ()), timeout_s=CHANGE_TIMEOUT_S)


def lower_command(name: str, owner: str, *, sudo: bool) -> Command:
    """End the session and unload the connection."""
    return Command(_shell(scripts.LOWER, (name, owner, sudo), ()), timeout_s=CHANGE_TIMEOUT_S)


def remove_command(name: str, owner: str, *, sudo: bool) -> Command:
    """Take everything away."""
    return Command(_shell(scripts.REMOVE, (name, owner, sudo), ()), timeout_s=CHANGE_TIMEOUT_S)
