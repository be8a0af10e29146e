"""What the stage keeps sealed: the keys it made, which hosts it has touched, and what it applied last."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from types import MappingProxyType
from typing import TypeAlias

from skyspan.contracts.context import Kept, KeptWriter
from skyspan.model.error import SpecError
from skyspan.model.secret import Secret
from skyspan.networks.wireguard.spec import End, WireguardSpec, key_bytes

_NAME = "link"


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """An interface on a host that this stage has made or was about to make."""

    host: str
    interface: str


Pair: TypeAlias = tuple[str, str]
"""Two hosts that have a tunnel, in the order of their names."""


def pair_of(one: str, other: str) -> Pair:
    """The two as a pair."""
    return (one, other) if one < other else (other, one)


@dataclass(frozen=True, slots=True)
class Memory:
    """`private` holds a made key by host, `shared` one by two hosts. `numbers` are the hosts' places among the tunnel
    addresses: a host keeps its own for as long as it is a side. `places` are written before they are touched.
    `applied` is the digest of the settings of the last apply that came to its end."""

    private: Mapping[str, Secret] = field(default_factory=lambda: MappingProxyType({}))
    shared: Mapping[Pair, Secret] = field(default_factory=lambda: MappingProxyType({}))
    numbers: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    places: tuple[Place, ...] = ()
    applied: str = ""


async def recall(kept: Kept) -> Memory | None:
    """What was kept; None when no host was ever touched."""
    data = await kept.get(_NAME)
    if data is None:
        return None
    record = json.loads(data)
    return Memory(
        private={host: Secret(key) for host, key in record["private"].items()},
        shared={pair_of(one, other): Secret(key) for one, other, key in record["shared"]},
        numbers=record["numbers"],
        places=tuple(Place(*place) for place in record["places"]),
        applied=record["applied"],
    )


async def remember(kept: KeptWriter, memory: Memory) -> None:
    """Keep it, replacing what was kept; durable when the call returns."""
    record = {
        "private": {host: key.reveal() for host, key in memory.private.items()},
        "shared": [[*pair, key.reveal()] for pair, key in memory.shared.items()],
        "numbers": dict(memory.numbers),
        "places": [[place.host, place.interface] for place in memory.places],
        "applied": memory.applied,
    }
    await kept.put(_NAME, json.dumps(record, separators=(",", ":")).encode())


async def forget(kept: KeptWriter) -> None:
    """Forget everything; absent is success."""
    await kept.remove(_NAME)


def with_keys(memory: Memory, spec: WireguardSpec) -> Memory:
    """`memory` with every key that `spec` wants made, and without those of hosts that are no side any more."""
    hosts = {end.host for end in spec.between}
    private = {host: key for host, key in memory.private.items() if host in hosts}
    private |= {end.host: _private_key() for end in spec.between if end.key is None and end.host not in private}
    shared = {pair: key for pair, key in memory.shared.items() if hosts.issuperset(pair)}
    if spec.psk is True:
        shared |= {pair: _shared_key() for pair in pairs_of(spec) if pair not in shared}
    return replace(memory, private=private, shared=shared)


def pairs_of(spec: WireguardSpec) -> Iterator[Pair]:
    """Every two sides that have a tunnel."""
    for one, other in combinations(spec.between, 2):
        if spec.joined(one, other):
            yield pair_of(one.host, other.host)


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of a link: each end's pair by host, and those that two share."""

    private: Mapping[str, Secret]
    public: Mapping[str, str]
    shared: Mapping[Pair, Secret]

    def psk(self, one: str, other: str) -> Secret | None:
        """What these two share on top of their own."""
        return self.shared.get(pair_of(one, other))


def keys_of(spec: WireguardSpec, memory: Memory) -> Keys | None:
    """The keys that `spec` and `memory` give; None while some are not made. Raises SpecError for a pair that does
    not fit."""
    private = {end.host: end.key or memory.private.get(end.host) for end in spec.between}
    known = {host: key for host, key in private.items() if key is not None}
    pairs = list(pairs_of(spec))
    shared: Mapping[Pair, Secret] = {}
    if isinstance(spec.psk, Secret):
        shared = dict.fromkeys(pairs, spec.psk)
    elif spec.psk:
        shared = {pair: memory.shared[pair] for pair in pairs if pair in memory.shared}
    if len(known) < len(private) or (spec.psk is True and len(shared) < len(pairs)):
        return None
    public = {host: public_key(key) for host, key in known.items()}
    for end in spec.between:
        _must_fit(end, public[end.host])
    return Keys(known, public, shared)


def _must_fit(end: End, public: str) -> None:
    if end.public_key is not None and key_bytes(end.public_key) != key_bytes(public):
        raise SpecError(
            f"the private key given for {end.host} does not belong to its public key {end.public_key}",
            detail=f"its public key is {public}",
            hint="give the key that `wg pubkey` turns into that public key, or leave `public_key` out",
        )


def public_key(private: Secret) -> str:
    """The public key of a private one, as `wg pubkey` prints it."""
    from nacl.bindings import crypto_scalarmult_base

    return _text(crypto_scalarmult_base(key_bytes(private.reveal())))


def _private_key() -> Secret:
    """A new private key, clamped as `wg genkey` does it (RFC 7748 section 5)."""
    from nacl.utils import random

    raw = bytearray(random(32))
    raw[0] &= 248
    raw[31] = (raw[31] & 127) | 64
    return Secret(_text(bytes(raw)))


def _shared_key() -> Secret:
    from nacl.utils import random

    return Secret(_text(random(32)))


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
