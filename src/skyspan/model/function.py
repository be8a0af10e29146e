"""The functions of the expression language: pure, each raising ValueError in words for what it cannot use."""

from __future__ import annotations

import base64
import ipaddress
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

from skyspan.model.value import Value

_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Function:
    """A function: how it is called (`usage`), how many arguments it takes, and what it does."""

    name: str
    usage: str
    least: int
    most: int
    run: Callable[..., Value]


def text_of(value: Value) -> str:
    """A scalar as it stands inside a text; raises ValueError for what has no one form."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return json.dumps(value)
    kind = "null" if value is None else "a list" if isinstance(value, list | tuple) else "a map"
    remedy = "give it a default()" if value is None else "use join() or tojson()"
    msg = f"{kind} cannot stand inside a text: {remedy}"
    raise ValueError(msg)


def _join(items: Value, separator: Value) -> str:
    if not isinstance(items, list | tuple):
        msg = "join() expects a list first"
        raise ValueError(msg)
    return _text(separator, "join() expects a text as separator").join(text_of(item) for item in items)


def _format(pattern: Value, *values: Value) -> str:
    parts = _text(pattern, "format() expects a text first").split("{}")
    if len(parts) - 1 != len(values):
        msg = f"format() has {len(parts) - 1} placeholders {{}} and {len(values)} values"
        raise ValueError(msg)
    filled = (text_of(value) + part for value, part in zip(values, parts[1:], strict=True))
    return parts[0] + "".join(filled)


def _cidrsubnet(prefix: Value, new_bits: Value, number: Value) -> str:
    network = _network(prefix, "cidrsubnet()")
    bits, wanted = _whole(new_bits, "cidrsubnet() newbits"), _whole(number, "cidrsubnet() netnum")
    length = network.prefixlen + bits
    if bits < 0 or length > network.max_prefixlen:
        msg = f"cidrsubnet(): {network} has no room for {bits} more bits"
        raise ValueError(msg)
    if not 0 <= wanted < 1 << bits:
        msg = f"cidrsubnet(): {bits} bits number the subnets 0 to {(1 << bits) - 1}, not {wanted}"
        raise ValueError(msg)
    start = int(network.network_address) + (wanted << (network.max_prefixlen - length))
    return f"{type(network.network_address)(start)}/{length}"


def _cidrhost(prefix: Value, number: Value) -> str:
    network, wanted = _network(prefix, "cidrhost()"), _whole(number, "cidrhost() number")
    size = network.num_addresses
    place = wanted if wanted >= 0 else size + wanted
    if not 0 <= place < size:
        msg = f"cidrhost(): {network} has {size} addresses, there is none with number {wanted}"
        raise ValueError(msg)
    return str(type(network.network_address)(int(network.network_address) + place))


def _tojson(value: Value) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _base64(value: Value) -> str:
    return base64.b64encode(text_of(value).encode()).decode("ascii")


def _text(value: Value, complaint: str) -> str:
    if not isinstance(value, str):
        raise ValueError(complaint)
    return value


def _whole(value: Value, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        msg = f"{what} expects a whole number"
        raise ValueError(msg)
    return int(value)


def _network(value: Value, caller: str) -> _Network:
    try:
        return ipaddress.ip_network(_text(value, ""), strict=False)
    except ValueError:
        msg = f"{caller} expects a network prefix such as 10.0.0.0/16 first, got {value!r}"
        raise ValueError(msg) from None


_MANY = 64

FUNCTIONS: Mapping[str, Function] = MappingProxyType(
    {
        function.name: function
        for function in (
            Function("join", "join(list, separator)", 2, 2, _join),
            Function("format", 'format("{} and {}", a, b)', 1, _MANY, _format),
            Function("cidrsubnet", "cidrsubnet(prefix, newbits, netnum)", 3, 3, _cidrsubnet),
            Function("cidrhost", "cidrhost(prefix, number)", 2, 2, _cidrhost),
            Function("tojson", "tojson(value)", 1, 1, _tojson),
            Function("base64", "base64(text)", 1, 1, _base64),
        )
    }
)
"""Every function but `default`, which is part of the language: it decides whether its first argument counts."""

DEFAULT_USAGE = "default(value, fallback)"
