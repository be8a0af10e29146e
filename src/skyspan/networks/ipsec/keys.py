"""What the stage keeps sealed: the keys and certificates it made, which hosts it has touched, what it applied last."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from skyspan.contracts.context import Kept, KeptWriter
from skyspan.model.secret import Secret
from skyspan.networks.ipsec.certificates import Issued, given, issue, new_ca
from skyspan.networks.ipsec.link import EndState
from skyspan.networks.ipsec.spec import IpsecSpec

_NAME = "link"


@dataclass(frozen=True, slots=True)
class Memory:
    """`psk` is the made shared key, `ca` the link's CA, `certificates` those it issued, by IKE identity. `places` are
    the hosts with something of ours, written before they are touched. `applied` is the digest of the settings of the
    last apply that came to its end."""

    psk: Secret | None = None
    ca: Issued | None = None
    certificates: Mapping[str, Issued] = field(default_factory=lambda: MappingProxyType({}))
    places: tuple[str, ...] = ()
    applied: str = ""


@dataclass(frozen=True, slots=True)
class Keys:
    """What the ends prove themselves with: the shared key, or a certificate per IKE identity and the CA's. `others` are
    secrets of the stage that this link does not use."""

    psk: Secret | None = None
    ca: str = ""
    certificates: Mapping[str, Issued] = field(default_factory=lambda: MappingProxyType({}))
    others: tuple[Secret, ...] = ()

    def secrets(self) -> tuple[Secret, ...]:
        """Everything that nobody may see."""
        return (
            *((self.psk,) if self.psk else ()),
            *(issued.key for issued in self.certificates.values()),
            *self.others,
        )


async def recall(kept: Kept) -> Memory | None:
    """What was kept; None when no host was ever touched."""
    data = await kept.get(_NAME)
    if data is None:
        return None
    record = json.loads(data)
    return Memory(
        psk=Secret(record["psk"]) if record["psk"] else None,
        ca=_restored(record["ca"]) if record["ca"] else None,
        certificates={name: _restored(item) for name, item in record["certificates"].items()},
        places=tuple(record["places"]),
        applied=record["applied"],
    )


async def remember(kept: KeptWriter, memory: Memory) -> None:
    """Keep it, replacing what was kept; durable when the call returns."""
    record = {
        "psk": memory.psk.reveal() if memory.psk else "",
        "ca": _record(memory.ca) if memory.ca else None,
        "certificates": {name: _record(item) for name, item in memory.certificates.items()},
        "places": list(memory.places),
        "applied": memory.applied,
    }
    await kept.put(_NAME, json.dumps(record, separators=(",", ":")).encode())


async def forget(kept: KeptWriter) -> None:
    """Forget everything; absent is success."""
    await kept.remove(_NAME)


def _record(issued: Issued) -> list[Any]:
    return [issued.certificate, issued.key.reveal(), issued.begins, issued.ends]


def _restored(record: Sequence[Any]) -> Issued:
    certificate, key, begins, ends = record
    return Issued(certificate, Secret(key), begins, ends)


def with_keys(memory: Memory, spec: IpsecSpec, ends: Sequence[EndState], now: float) -> Memory:
    """`memory` with everything that `spec` wants made, and what is due renewed."""
    if spec.auth == "psk":
        made = memory.psk or (None if spec.psk else _shared_key())
        return replace(memory, psk=made)
    if spec.ca is not None:
        return memory
    ca = memory.ca if memory.ca is not None and not memory.ca.due(now) else new_ca(ends[0].name, now)
    kept = memory.certificates if ca is memory.ca else {}
    certificates = {
        end.own_id: kept[end.own_id]
        if end.own_id in kept and not kept[end.own_id].due(now)
        else issue(ca, end.own_id, spec.certificate_days, now)
        for end in ends
    }
    return replace(memory, ca=ca, certificates=certificates)


def keys_of(spec: IpsecSpec, memory: Memory, ends: Sequence[EndState]) -> Keys | None:
    """What `spec` and `memory` give; None while some is not made. Raises SpecError for a pair that does not fit."""
    if spec.auth == "psk":
        psk = spec.psk or memory.psk
        return Keys(psk) if psk is not None else None
    if spec.ca is not None:
        pairs = zip(ends, spec.between, strict=True)
        return Keys(
            ca=spec.ca,
            certificates={
                state.own_id: given(end.certificate, end.key, end.host)
                for state, end in pairs
                if end.certificate is not None and end.key is not None
            },
        )
    if memory.ca is None or any(end.own_id not in memory.certificates for end in ends):
        return None
    return Keys(ca=memory.ca.certificate, certificates={end.own_id: memory.certificates[end.own_id] for end in ends})


def _shared_key() -> Secret:
    from nacl.utils import random

    return Secret(base64.urlsafe_b64encode(random(32)).decode().rstrip("="))
