"""What the stage keeps sealed: the keys it made, which hosts it has touched, and what it applied last."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

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


@dataclass(frozen=True, slots=True)
class Memory:
    """`private` holds a made key by host, `psk` the made shared key. `places` are written before they are touched.
    `applied` is the digest of the settings of the last apply that came to its end."""

    private: Mapping[str, Secret] = field(default_factory=lambda: MappingProxyType({}))
    psk: Secret | None = None
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
        psk=Secret(record["psk"]) if record["psk"] else None,
        places=tuple(Place(*place) for place in record["places"]),
        applied=record["applied"],
    )


async def remember(kept: KeptWriter, memory: Memory) -> None:
    """Keep it, replacing what was kept; durable when the call returns."""
    record = {
        "private": {host: key.reveal() for host, key in memory.private.items()},
        "psk": memory.psk.reveal() if memory.psk else "",
        "places": [[place.host, place.interface] for place in memory.places],
        "applied": memory.applied,
    }
    await kept.put(_NAME, json.dumps(record, separators=(",", ":")).encode())


async def forget(kept: KeptWriter) -> None:
    """Forget everything; absent is success."""
    await kept.remove(_NAME)


def with_keys(memory: Memory, spec: WireguardSpec) -> Memory:
    """`memory` with every key that `spec` wants made."""
    missing = [end.host for end in spec.between if end.key is None and end.host not in memory.private]
    psk = memory.psk or (_shared_key() if spec.psk is True else None)
    return replace(memory, private={**memory.private, **{host: _private_key() for host in missing}}, psk=psk)


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of a link: each end's pair by host, and the shared one."""

    private: Mapping[str, Secret]
    public: Mapping[str, str]
    psk: Secret | None


def keys_of(spec: WireguardSpec, memory: Memory) -> Keys | None:
    """The keys that `spec` and `memory` give; None while some are not made. Raises SpecError for a pair that does
    not fit."""
    private = {end.host: end.key or memory.private.get(end.host) for end in spec.between}
    known = {host: key for host, key in private.items() if key is not None}
    psk = memory.psk if spec.psk is True else spec.psk or None
    if len(known) < len(private) or (spec.psk is True and psk is None):
        return None
    public = {host: public_key(key) for host, key in known.items()}
    for end in spec.between:
        _must_fit(end, public[end.host])
    return Keys(known, public, psk)


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
