"""Faults on demand between the sites of a world, as the router's nftables rules and its names (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from types import MappingProxyType

from skyspan.model.error import UsageError
from skyspan.rehearsal.faults import on_hosts
from skyspan.rehearsal.underlay.topology import CONTROL, site_bridge

USAGE = (
    "use one of: cut A B, restore A B, loss A B PERCENT, mtu SITE BYTES, nat SITE, rebind SITE, dns NAME ADDRESS, "
    f"dns NAME nowhere, clear, {on_hosts.USAGE}"
)

NOWHERE = "nowhere"
"""What is written for a name that does not exist."""

_FIRST_PORT, _PORTS, _RANGES = 20000, 4000, 10
"""The ports of a shared address, and in how many ranges `rebind` goes through them."""


@dataclass(frozen=True, slots=True)
class Faults:
    """What is wrong now. Pairs of sites are unordered; `control` is where Skyspan runs.

    `loss` is the share of packets dropped in each direction, in percent. `mtu` drops longer packets to and from a site
    without a word, as a path does that filters ICMP. `nat` are sites behind an address that others share: they call,
    and nobody calls them; where Skyspan is still reaches them. Its value says how often their ports were changed.
    `names` are answers of the name server that were swapped; None is a name that does not exist.
    """

    cut: frozenset[frozenset[str]] = frozenset()
    loss: Mapping[frozenset[str], float] = field(default_factory=lambda: MappingProxyType({}))
    mtu: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    nat: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    names: Mapping[str, str | None] = field(default_factory=lambda: MappingProxyType({}))


def changed(faults: Faults, words: list[str], sites: Iterable[str]) -> Faults:
    """The faults after one instruction, such as `cut cloud lab`; raises UsageError for one that cannot be."""
    known = {*sites, CONTROL}
    match words:
        case ["cut", one, other]:
            return replace(faults, cut=faults.cut | {_pair(one, other, known)})
        case ["restore", one, other]:
            pair = _pair(one, other, known)
            loss = {key: value for key, value in faults.loss.items() if key != pair}
            return replace(faults, cut=faults.cut - {pair}, loss=loss)
        case ["loss", one, other, percent]:
            return replace(faults, loss={**faults.loss, _pair(one, other, known): _number(percent, 0, 100)})
        case ["mtu", site, size]:
            _known(site, known)
            return replace(faults, mtu={**faults.mtu, site: int(_number(size, 68, 65535))})
        case ["nat", site]:
            _known(site, {*sites})
            return replace(faults, nat={**faults.nat, site: faults.nat.get(site, 0)})
        case ["rebind", site]:
            if site not in faults.nat:
                raise UsageError(f"{site} is not behind NAT", hint=f"make it so first: nat {site}")
            return replace(faults, nat={**faults.nat, site: faults.nat[site] + 1})
        case ["dns", name, address]:
            return replace(faults, names={**faults.names, name.rstrip(".").lower(): _answer(address)})
        case ["clear"]:
            return Faults()
    raise UsageError(f"no such fault: {' '.join(words)}", hint=USAGE)


def rules(faults: Faults) -> str:
    """The nftables table that makes them so, replacing the one before."""
    lines = ["table inet faults", "delete table inet faults", "table inet faults {", " chain between {"]
    lines.append("  type filter hook forward priority -20")
    for pair in sorted(map(sorted, faults.cut)):
        lines += [f"  {direction} drop" for direction in _both(pair)]
    for pair, percent in sorted((sorted(pair), percent) for pair, percent in faults.loss.items()):
        chance = f" numgen random mod 1000 < {round(percent * 10)}" if percent < 100 else ""
        lines += [f"  {direction}{chance} drop" for direction in _both(pair)]
    for site, size in sorted(faults.mtu.items()):
        port = _port(site)
        lines += [f'  iifname "{port}" meta length > {size} drop', f'  oifname "{port}" meta length > {size} drop']
    for site in sorted(faults.nat):
        lines.append(f'  iifname != {{ "{CONTROL}", "{_port(site)}" }} oifname "{_port(site)}" ct state new drop')
    lines += [" }", " chain shared {", "  type nat hook postrouting priority 100"]
    for site, times in sorted(faults.nat.items()):
        first = _FIRST_PORT + times % _RANGES * _PORTS
        ends = f'iifname "{_port(site)}" oifname != "{CONTROL}"'
        lines.append(f"  {ends} meta l4proto {{ tcp, udp }} masquerade to :{first}-{first + _PORTS - 1}")
        lines.append(f"  {ends} masquerade")
    return "\n".join([*lines, " }", "}"]) + "\n"


def _both(pair: list[str]) -> Iterator[str]:
    one, other = map(_port, pair)
    yield f'iifname "{one}" oifname "{other}"'
    yield f'iifname "{other}" oifname "{one}"'


def _port(site: str) -> str:
    return CONTROL if site == CONTROL else site_bridge(site)


def _pair(one: str, other: str, known: set[str]) -> frozenset[str]:
    _known(one, known)
    _known(other, known)
    if one == other:
        raise UsageError(f"a fault is between two sites, not {one} and itself", hint=USAGE)
    return frozenset({one, other})


def _known(site: str, known: set[str]) -> None:
    if site not in known:
        raise UsageError(f"there is no site {site}", hint=f"there are {', '.join(sorted(known))}")


def _answer(text: str) -> str | None:
    if text == NOWHERE:
        return None
    try:
        return str(IPv4Address(text))
    except ValueError:
        raise UsageError(f"{text} is no IPv4 address", hint=USAGE) from None


def _number(text: str, least: float, most: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        raise UsageError(f"{text} is no number from {least} to {most}", hint=USAGE)
    return number
