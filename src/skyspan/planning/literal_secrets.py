"""Finds secrets that are written out where only a reference to one may stand."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from skyspan.model.expression import Loc, has_expression
from skyspan.model.value import Value

_NAME = re.compile(
    r"(^|[_-])(psk|preshared_?key|pre_shared_?key|pass(word|phrase|wd)?|secret|token|private_?key|auth_?key|api_?key|"
    r"access_?key|secret_?key|shared_?secret|bearer|credentials?)$",
    re.IGNORECASE,
)
"""Settings that hold a secret by their name; those that hold a path or a variable's name end otherwise."""

_SHAPES = (
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    # Keys of Tailscale and Headscale, an access key and a token that clouds and forges print.
    re.compile(r"\btskey-[a-z]+-\w|\bhskey-[a-z]+-\w|\bnodekey:\w{16}|\bprivkey:\w{16}"),
    re.compile(r"\bA(KI|SI)A[0-9A-Z]{16}\b|\bgh[pousr]_\w{20}|\bglpat-[\w-]{16}"),
    # The userinfo of a URL with a password.
    re.compile(r"://[^/\s:@]*:[^/\s@]+@"),
)

_WIREGUARD_KEY = re.compile(r"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=")
"""32 bytes in base64, as `wg` prints private, public and preshared keys alike."""


def literal_secrets(value: Value, loc: Loc = ()) -> Iterator[Loc]:
    """Where in the raw `value` a text without any expression looks like a secret, by its setting's name or its form."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from literal_secrets(item, (*loc, key))
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from literal_secrets(item, (*loc, place))
    elif isinstance(value, str) and value and not has_expression(value) and _looks_secret(loc, value):
        yield loc


def _looks_secret(loc: Loc, text: str) -> bool:
    name = next((step for step in reversed(loc) if isinstance(step, str)), "")
    if any(shape.search(text) for shape in _SHAPES):
        return True
    if "public" in name.lower():
        return False
    return _NAME.search(name) is not None or _WIREGUARD_KEY.fullmatch(text) is not None
