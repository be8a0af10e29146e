"""The commands that run on a gateway, as values: pure."""

from __future__ import annotations

from skyspan.contracts.transport import Command, Effect
from skyspan.model.secret import Secret
from skyspan.networks.peers import ROUTE_PROTOCOL, OwnRoute
from skyspan.networks.wireguard import scripts
from skyspan.networks.wireguard.config import QUICK_ONLY
from skyspan.networks.wireguard.link import EndState, table_name

KERNEL_CANNOT = 91
"""Exit status of `raise_command` when the kernel has no WireGuard and `plane: kernel` is asked for."""

NO_USERSPACE = 92
"""Exit status of `raise_command` when wireguard-go would be needed and is missing."""

NO_TUN = 95
"""Exit status of `raise_command` when wireguard-go has no /dev/net/tun to open."""

TAKEN = 90
"""Exit status of `prepare_command` when the interface or its file is somebody else's."""

LOOK_TIMEOUT_S = 30.0
CHANGE_TIMEOUT_S = 60.0


def _shell(script: str, names: tuple[str, str, bool], arguments: tuple[str, ...]) -> tuple[str, ...]:
    """`names` are interface and owner, and whether root must be asked for."""
    interface, owner, sudo = names
    argv = ("sh", "-euc", scripts.PLACES + script, "skyspan", interface, owner, table_name(interface), *arguments)
    return ("sudo", "-n", *argv) if sudo else argv


def _names(end: EndState) -> tuple[str, str, bool]:
    return end.interface, end.owner, end.sudo


def survey_command(end: EndState, *, probe: bool) -> Command:
    """Look at an end; with `probe`, ping the other one first."""
    peers = " ".join(end.peer_addresses) if probe else ""
    sizes = (str(end.mtu), str(end.mtu))
    return Command(_shell(scripts.SURVEY, _names(end), (peers, *sizes)), timeout_s=LOOK_TIMEOUT_S, effect=Effect.READ)


def prepare_command(end: EndState, config: Secret) -> Command:
    """Put in place all that must stand before the first packet."""
    families = " ".join(map(str, end.families))
    arguments = (families, end.firewall, f"{end.confirm_within:g}", str(ROUTE_PROTOCOL))
    return Command(_shell(scripts.PREPARE, _names(end), arguments), stdin=config, timeout_s=CHANGE_TIMEOUT_S)


def confirm_command(end: EndState) -> Command:
    """Say that the host can still be reached, so that it keeps what was changed."""
    return Command(_shell(scripts.CONFIRMED, _names(end), ()), timeout_s=LOOK_TIMEOUT_S)


def raise_command(end: EndState, routes: tuple[OwnRoute, ...], *, again: bool) -> Command:
    """Make the interface what it is to be; `again` makes it anew first, for another plane."""
    lines = "".join(f"{route.prefix} {route.source}".rstrip() + "\n" for route in routes)
    arguments = (
        end.plane,
        "again" if again else "",
        str(end.mtu),
        " ".join(end.addresses),
        lines,
        str(ROUTE_PROTOCOL),
        QUICK_ONLY,
    )
    return Command(_shell(scripts.RAISE, _names(end), arguments), timeout_s=CHANGE_TIMEOUT_S)


def lower_command(interface: str, owner: str, *, sudo: bool) -> Command:
    """Take the interface away, keep the files."""
    return Command(_shell(scripts.LOWER, (interface, owner, sudo), ()), timeout_s=CHANGE_TIMEOUT_S)


def remove_command(interface: str, owner: str, *, sudo: bool) -> Command:
    """Take everything away."""
    return Command(_shell(scripts.REMOVE, (interface, owner, sudo), ()), timeout_s=CHANGE_TIMEOUT_S)
