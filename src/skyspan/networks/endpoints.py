"""What the settings of links have in common: addresses, prefixes, rules and services as people write them: pure."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Annotated, TypeAlias

from skyspan.networks.addressing import Network
from skyspan.networks.firewall import parse_admission
from skyspan.networks.written import checked, parse_network

MINIMUM_MTU_V6 = 1280
"""What every IPv6 link must carry (RFC 8200 section 5)."""

_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252})?")


def parse_prefix(text: str) -> Network:
    """The network that a link may carry; raises ValueError in words."""
    network = parse_network(text)
    if network.prefixlen == 0:
        msg = f"{text} is everything: a link joins sites and does not take the default route"
        raise ValueError(msg)
    return network


def parse_endpoint(text: str) -> tuple[str, int | None]:
    """Address or name, and port when one is given, of `gw.example.org`, `192.0.2.1:51820` or `[2001:db8::1]:51820`.

    IPv6 stands in brackets, with a port and without: its last group cannot be told from a port."""
    port: int | None = None
    if text.startswith("["):
        bare, bracket, rest = text[1:].partition("]")
        if not bracket or not _is_ipv6(bare) or (rest and not rest.startswith(":")):
            msg = f"{text!r} is no address: brackets are for IPv6 alone, as in [2001:db8::1]:51820"
            raise ValueError(msg)
        return str(ip_address(bare)), _port(text, rest[1:]) if rest else None
    bare, colon, rest = text.partition(":")
    if ":" in rest:
        whole = text if _is_ipv6(text) else text.rpartition(":")[0]
        advice = f": write [{whole}], or [{whole}]:PORT" if _is_ipv6(whole) else ""
        msg = f"{text!r} is IPv6 without brackets{advice}" if advice else f"{text!r} is no address and no name"
        raise ValueError(msg)
    if colon:
        port = _port(text, rest)
    try:
        return str(ip_address(bare)), port
    except ValueError:
        if _HOST.fullmatch(bare) is None:
            msg = f"{text!r} is no address: write an IP address or a name, with :PORT if it differs (IPv6 in brackets)"
            raise ValueError(msg) from None
    return bare, port


def _is_ipv6(text: str) -> bool:
    try:
        return ip_address(text).version == 6
    except ValueError:
        return False


def _port(text: str, digits: str) -> int:
    if not digits.isdecimal() or not 0 < int(digits) < 65536:
        msg = f"{text!r} does not end in a port between 1 and 65535"
        raise ValueError(msg)
    return int(digits)


def check_service(text: str) -> None:
    """Raises ValueError for what is not `address:port`."""
    address, port = parse_endpoint(text)
    ip_address(address)
    if port is None:
        msg = f"{text!r} has no port: write address:port"
        raise ValueError(msg)


Endpoint: TypeAlias = Annotated[str, checked(parse_endpoint)]
Prefix: TypeAlias = Annotated[str, checked(parse_prefix)]
Rule: TypeAlias = Annotated[str, checked(parse_admission)]
Service: TypeAlias = Annotated[str, checked(check_service)]
