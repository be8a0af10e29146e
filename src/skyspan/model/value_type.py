"""Value types: what inputs and outputs may be declared as, and whether a value is one."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from urllib.parse import urlsplit

from skyspan.model.secret import Secret
from skyspan.model.value import Value

_OPENSSH_KINDS = re.compile(
    r"^(ssh-(rsa|dss|ed25519)|ecdsa-sha2-nistp(256|384|521)|sk-(ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com)$"
)
_HOST_NAME = re.compile(r"^(?=.{1,253}\.?$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}))*\.?$")
_MAX_DEPTH = 8


@dataclass(frozen=True, slots=True)
class ValueType:
    """A declared type; `item` is what a list or map holds, None for everything else."""

    name: str
    item: ValueType | None = None

    def __str__(self) -> str:
        return f"{self.name}<{self.item}>" if self.item else self.name


def parse_type(text: str) -> ValueType:
    """The type written as `text`; raises ValueError that says what is allowed."""
    return _parse(text.strip(), text, 0)


def _parse(part: str, whole: str, depth: int) -> ValueType:
    if depth > _MAX_DEPTH:
        msg = f"type {whole!r} is nested deeper than {_MAX_DEPTH}"
        raise ValueError(msg)
    if part in ("list", "map"):
        return ValueType(part, ValueType("any"))
    for name in ("list", "map"):
        if part.startswith(f"{name}<") and part.endswith(">"):
            return ValueType(name, _parse(part[len(name) + 1 : -1].strip(), whole, depth + 1))
    if part not in _CHECKS:
        msg = f"unknown type {whole!r}; allowed are {', '.join(TYPE_NAMES)}"
        raise ValueError(msg)
    return ValueType(part)


def conform(value: Value, kind: ValueType) -> Value:
    """`value`, when it is of type `kind`; raises ValueError that says what was expected and what came.

    A Secret is judged by its text and stays a Secret; the message then shows nothing of it.
    """
    if kind.item is not None:
        return _conform_items(value, kind, kind.item)
    if isinstance(value, Secret):
        if _CHECKS[kind.name](_read(value.reveal(), kind)) is not None:
            msg = f"expected type {kind}, got a sensitive value that is none"
            raise ValueError(msg)
        return value
    problem = _CHECKS[kind.name](value)
    if problem is not None:
        msg = f"expected {problem}, got {_kind_of(value)}"
        raise ValueError(msg)
    return int(value) if kind.name == "port" else value


def _conform_items(value: Value, kind: ValueType, item: ValueType) -> Value:
    if kind.name == "list" and isinstance(value, list | tuple):
        return [_inside(f"[{place}]", element, item) for place, element in enumerate(value)]
    if kind.name == "map" and isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                msg = f"expected text keys in {kind}, got {_kind_of(key)}"
                raise ValueError(msg)
        return {key: _inside(f".{key}", element, item) for key, element in value.items()}
    msg = f"expected {kind}, got {_kind_of(value)}"
    raise ValueError(msg)


def _inside(place: str, value: Value, kind: ValueType) -> Value:
    try:
        return conform(value, kind)
    except ValueError as error:
        msg = f"{place}: {error}" if not str(error).startswith(("[", ".")) else f"{place}{error}"
        raise ValueError(msg) from None


def from_text(text: str, kind: ValueType) -> Value:
    """The value of type `kind` that somebody wrote as `text` on a command line; raises ValueError.

    Lists and maps are written as JSON (a list of texts also as `a,b,c`); `any` is JSON where it parses.
    """
    if kind.name == "secret":
        return Secret(text)
    return conform(_read(text, kind), kind)


def _read(text: str, kind: ValueType) -> Value:
    if kind.name in ("number", "port"):
        return _number_text(text)
    if kind.name == "bool":
        return {"true": True, "false": False}.get(text.strip().lower(), text)
    if kind.name in ("list", "map", "any"):
        try:
            return json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            if kind.name == "list" and kind.item is not None and not text.lstrip().startswith("["):
                item = kind.item
                return [_read(part.strip(), item) for part in text.split(",")] if text.strip() else []
            return text
    return text


def _refuse_constant(name: str) -> Value:
    msg = f"{name} is no JSON"
    raise ValueError(msg)


def _number_text(text: str) -> Value:
    try:
        return int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            return text


def _kind_of(value: Value) -> str:
    match value:
        case None:
            return "nothing (null)"
        case bool():
            return f"the bool {str(value).lower()}"
        case int() | float():
            return f"the number {value}"
        case str():
            return f"{value!r}" if len(value) <= 60 else f"{value[:57]!r}…"
        case Secret():
            return "a secret"
        case list() | tuple():
            return f"a list of {len(value)}"
        case Mapping():
            return f"a map of {len(value)}"
        case _:
            return f"a {type(value).__name__}"


def _check_string(value: Value) -> str | None:
    return None if isinstance(value, str) else "a text (put quotes around it)"


def _check_number(value: Value) -> str | None:
    fine = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return None if fine else "a number"


def _check_bool(value: Value) -> str | None:
    return None if isinstance(value, bool) else "true or false"


def _check_ip(value: Value) -> str | None:
    return (
        None if isinstance(value, str) and _is_address(value) else "an IP address such as 203.0.113.10 or 2001:db8::1"
    )


def _check_cidr(value: Value) -> str | None:
    example = "a network prefix such as 10.0.0.0/16 or 2001:db8::/48"
    if not isinstance(value, str) or "/" not in value:
        return example
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        return example
    written = ipaddress.ip_address(value.split("/", 1)[0])
    return None if written == network.network_address else f"a network prefix without host bits ({network})"


def _check_endpoint(value: Value) -> str | None:
    example = "HOST:PORT such as 203.0.113.10:51820, gw.example.org:443 or [2001:db8::1]:51820"
    if not isinstance(value, str):
        return example
    host, colon, port = value.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 1 <= int(port[:6]) <= 65535:
        return example
    if host.startswith("[") and host.endswith("]"):
        return None if ":" in host and _is_address(host[1:-1]) else example
    return None if _HOST_NAME.match(host) else example


def _check_url(value: Value) -> str | None:
    example = "a URL such as https://example.org/path"
    if not isinstance(value, str) or any(char.isspace() for char in value):
        return example
    try:
        parts = urlsplit(value)
        fine = bool(parts.scheme and (parts.hostname or parts.scheme in ("file", "unix"))) and (parts.port or 0) >= 0
    except ValueError:
        fine = False
    return None if fine else example


def _check_port(value: Value) -> str | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return None if number and 1 <= value <= 65535 and value == int(value) else "a port between 1 and 65535"


def _check_public_key(value: Value) -> str | None:
    fine = isinstance(value, str) and (_is_wireguard_key(value) or _is_openssh_key(value))
    return None if fine else "a public key: WireGuard's (44 characters of base64) or OpenSSH's (ssh-ed25519 AAAA…)"


def _check_any(value: Value) -> str | None:
    return None


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_wireguard_key(text: str) -> bool:
    """Curve25519 key as `wg` prints it: 32 bytes in base64 (wg(8), "Encoding of keys")."""
    try:
        return len(text) == 44 and len(base64.b64decode(text, validate=True)) == 32
    except (binascii.Error, ValueError):
        return False


def _is_openssh_key(text: str) -> bool:
    """`KIND BASE64 [COMMENT]`, where the base64 data repeats the kind (RFC 4253 section 6.6)."""
    words = text.split(None, 2)
    if len(words) < 2 or "\n" in text.strip() or not _OPENSSH_KINDS.match(words[0]):
        return False
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (binascii.Error, ValueError):
        return False
    name = words[0].encode()
    return blob.startswith(len(name).to_bytes(4, "big") + name)


_CHECKS: Mapping[str, Callable[[Value], str | None]] = MappingProxyType(
    {
        "string": _check_string,
        "number": _check_number,
        "bool": _check_bool,
        "ip": _check_ip,
        "cidr": _check_cidr,
        "endpoint": _check_endpoint,
        "url": _check_url,
        "port": _check_port,
        "public_key": _check_public_key,
        "secret": _check_string,
        "any": _check_any,
    }
)

TYPE_NAMES: tuple[str, ...] = (*(name for name in _CHECKS if name != "any"), "list<…>", "map<…>", "any")
"""Every type as it may be written, for messages and documentation."""
