"""Who listens on a machine: the command that asks for it, and what it prints, read into values; pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from skyspan.contracts.transport import Command, Effect
from skyspan.networks.looking import sections

_LISTEN = "0A"
"""TCP_LISTEN in the kernel's tcp_states.h."""

_LOOK = """
PATH=$PATH:/usr/sbin:/sbin
echo @tcp; cat /proc/net/tcp /proc/net/tcp6 2>/dev/null
echo @user; id -u; cat /proc/sys/net/ipv4/ip_unprivileged_port_start 2>/dev/null || echo 1024
echo @who; ss -Hltnp 2>/dev/null || :
"""

_EVERYWHERE = ip_address("::")
"""Usually IPv4 too (ipv6(7), IPV6_V6ONLY)."""

_OWNER = re.compile(r'\("([^"]+)",pid=(\d+)')


@dataclass(frozen=True, slots=True)
class Listening:
    """A machine's listening TCP sockets. `owners` holds what is known of who has a port: a program and its id.

    `root` when the asking user is; ports from `unprivileged` on are for everybody.
    """

    sockets: frozenset[tuple[IPv4Address | IPv6Address, int]]
    owners: dict[int, str]
    root: bool = False
    unprivileged: int = 1024

    def on(self, port: int) -> tuple[IPv4Address | IPv6Address, ...]:
        """The addresses that are listened on with this port, sorted."""
        return tuple(sorted((at for at, number in self.sockets if number == port), key=lambda at: (at.version, at)))

    def taken(self, address: str, port: int) -> bool:
        """Whether somebody listens there, or everywhere."""
        wanted = ip_address(address)
        return any(
            at == wanted or at.is_unspecified or (wanted.is_unspecified and at.version == wanted.version)
            for at in self.on(port)
        )

    def as_asked(self, address: str, port: int) -> bool:
        """Whether somebody listens on all that this address stands for."""
        wanted = ip_address(address)
        return any(
            at in {wanted, _EVERYWHERE} or (at.is_unspecified and at.version == wanted.version) for at in self.on(port)
        )

    def owner(self, port: int) -> str:
        """Who has it, in words."""
        return self.owners.get(port, "something")


def listening_command() -> Command:
    """Ask a machine who listens on it."""
    return Command(("sh", "-uc", _LOOK), timeout_s=10.0, effect=Effect.READ)


def parse_listening(text: str) -> Listening:
    """What it printed. Lines that say nothing are passed over."""
    found = sections(text)
    user, _, unprivileged = found.get("user", "").partition("\n")
    lowest = unprivileged.strip()
    return Listening(
        frozenset(_sockets(found.get("tcp", ""))),
        dict(_owners(found.get("who", ""))),
        user.strip() == "0",
        int(lowest) if lowest.isdecimal() else 1024,
    )


def _sockets(text: str) -> Iterator[tuple[IPv4Address | IPv6Address, int]]:
    """From the lines of /proc/net/tcp and tcp6: addresses are words of 32 bits their lowest byte first."""
    for line in text.splitlines():
        words = line.split()
        if len(words) > 3 and words[3] == _LISTEN:
            address, _, port = words[1].partition(":")
            try:
                raw = bytes.fromhex(address)
                parts = [raw[place : place + 4][::-1] for place in range(0, len(raw), 4)]
                yield ip_address(b"".join(parts)), int(port, 16)
            except ValueError:
                continue


def _owners(text: str) -> Iterator[tuple[int, str]]:
    for line in text.splitlines():
        words = line.split()
        owner = _OWNER.search(line)
        if len(words) > 3 and owner is not None:
            yield int(words[3].rpartition(":")[2]), f"{owner[1]} (process {owner[2]})"
