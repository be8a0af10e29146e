"""Values: what inputs, specs and outputs are made of (JSON plus secrets), and what is done to them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from skyspan.model.secret import MASK, Secret

Value: TypeAlias = Any
"""None, bool, int, float, str, Secret, or lists and string-keyed dicts of these."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A value that nobody can know yet, and the references it waits for (`stages.cloud.outputs.vpc_cidr`)."""

    references: frozenset[str]

    def __or__(self, other: Unknown) -> Unknown:
        return Unknown(self.references | other.references)


@dataclass(frozen=True, slots=True)
class OutputValue:
    """One output of a stage. A sensitive one shows its mask everywhere."""

    value: Value = field(repr=False)
    sensitive: bool = False

    def shown(self) -> Value:
        """The value for people and logs."""
        return MASK if self.sensitive else masked(self.value)


def transform(value: Value, leaf: Callable[[Value], Value]) -> Value:
    """`value` with `leaf` applied to everything that is not a list or a dict."""
    if isinstance(value, Mapping):
        return {key: transform(item, leaf) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [transform(item, leaf) for item in value]
    return leaf(value)


def leaves(value: Value) -> Iterator[Value]:
    """Everything in `value` that is not a list or a dict, in order."""
    if isinstance(value, Mapping):
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def masked(value: Value) -> Value:
    """`value` with every secret replaced by its mask: what may be shown or stored in clear."""
    return transform(value, lambda leaf: MASK if isinstance(leaf, Secret) else leaf)


def revealed(value: Value) -> Value:
    """`value` with every secret in clear: only for the tool that needs it."""
    return transform(value, lambda leaf: leaf.reveal() if isinstance(leaf, Secret) else leaf)


def concealed(value: Value) -> Value:
    """`value` with every text and number made a secret: how a sensitive output reaches an expression."""

    def conceal(leaf: Value) -> Value:
        if leaf is None or isinstance(leaf, Secret | bool):
            return leaf
        return Secret(leaf if isinstance(leaf, str) else json.dumps(leaf))

    return transform(value, conceal)


def secrets_in(value: Value) -> frozenset[Secret]:
    """Every secret inside `value`."""
    return frozenset(leaf for leaf in leaves(value) if isinstance(leaf, Secret))


def tagged(value: Value) -> Value:
    """`value` as JSON that remembers which texts were secrets; only ever stored sealed."""
    if isinstance(value, Mapping):
        return {("\\" + key if key.startswith(("\\", "$secret")) else key): tagged(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [tagged(item) for item in value]
    return {"$secret": value.reveal()} if isinstance(value, Secret) else value


def untagged(value: Value) -> Value:
    """The inverse of `tagged`."""
    if isinstance(value, Mapping):
        if set(value) == {"$secret"}:
            return Secret(value["$secret"])
        return {(key[1:] if key.startswith("\\") else key): untagged(item) for key, item in value.items()}
    if isinstance(value, list):
        return [untagged(item) for item in value]
    return value


def canonical(value: Value) -> bytes:
    """The one JSON text of `value`, secrets in clear; for digests, never for storage or show."""
    return json.dumps(revealed(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest(value: Value, key: bytes = b"") -> str:
    """A digest of `value`; keyed, so that a stored digest of a weak secret cannot be searched for (64 hex digits)."""
    return hashlib.blake2b(canonical(value), key=key[:64], digest_size=32).hexdigest()
