"""What can befall one stand-in: the words that say it, and what they mean (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TypeAlias

from skyspan.model.error import UsageError
from skyspan.rehearsal.spec import Rehearsal

USAGE = "renumber HOST ADDRESS, kill HOST PROGRAM, start HOST SERVICE, reboot HOST, clock HOST SECONDS"

MOST_S = 10 * 365 * 86400
"""How far a clock may be stepped, in seconds."""


@dataclass(frozen=True, slots=True)
class Renumber:
    """Its address on its site becomes another; the old one is gone."""

    host: str
    address: IPv4Address


@dataclass(frozen=True, slots=True)
class Kill:
    """Every process of that name on it is killed (SIGKILL)."""

    host: str
    program: str


@dataclass(frozen=True, slots=True)
class Start:
    """One of its services is started again."""

    host: str
    service: str


@dataclass(frozen=True, slots=True)
class Reboot:
    """It goes down without a word and comes up as it was configured, with its files."""

    host: str


@dataclass(frozen=True, slots=True)
class Clock:
    """Its clock is `step` seconds ahead (behind, if negative) of the world's; 0 mends it."""

    host: str
    step: int


Act: TypeAlias = Renumber | Kill | Start | Reboot | Clock


def act(words: list[str], rehearsal: Rehearsal) -> Act | None:
    """What one instruction does to a stand-in; None if it is not about one. Raises UsageError for what cannot be."""
    match words:
        case ["renumber", host, address]:
            return Renumber(_host(host, rehearsal), _address(host, address, rehearsal))
        case ["kill", host, program]:
            return Kill(_host(host, rehearsal), program)
        case ["start", host, service]:
            _service(_host(host, rehearsal), service, rehearsal)
            return Start(host, service)
        case ["reboot", host]:
            return Reboot(_host(host, rehearsal))
        case ["clock", host, seconds]:
            return Clock(_host(host, rehearsal), _seconds(seconds))
    return None


def _host(name: str, rehearsal: Rehearsal) -> str:
    if name not in rehearsal.hosts:
        raise UsageError(f"there is no stand-in {name}", hint=f"there are {', '.join(rehearsal.hosts) or 'none'}")
    return name


def _service(host: str, name: str, rehearsal: Rehearsal) -> None:
    services = rehearsal.hosts[host].services
    if name not in services:
        raise UsageError(f"{host} has no service {name}", hint=f"it has {', '.join(services) or 'none'}")


def _address(host: str, text: str, rehearsal: Rehearsal) -> IPv4Address:
    """A free address of the stand-in's own site."""
    stand_in = rehearsal.hosts[host]
    if stand_in.site is None or stand_in.address is None:
        raise UsageError(
            f"{host} has no address of its own on a site",
            hint="one that stands for an instance gets its from the cloud",
        )
    prefix = rehearsal.sites[stand_in.site].prefix
    try:
        address = IPv4Address(text)
    except ValueError:
        raise UsageError(f"{text} is no IPv4 address", hint=f"choose one of {prefix}") from None
    pool = rehearsal.elastic_ips
    unusable = {prefix.network_address, prefix.network_address + 1, prefix.broadcast_address}
    if address not in prefix or address in unusable or (pool is not None and address in pool):
        raise UsageError(f"{address} is no address that {host} could have", hint=f"choose a free one of {prefix}")
    return address


def _seconds(text: str) -> int:
    try:
        seconds = int(text)
    except ValueError:
        seconds = MOST_S + 1
    if abs(seconds) > MOST_S:
        raise UsageError(f"{text} is no whole number of seconds from {-MOST_S} to {MOST_S}", hint=USAGE)
    return seconds
