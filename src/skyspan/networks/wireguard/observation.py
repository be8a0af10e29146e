"""What was seen of a link, as the engine wants it: differences, fingerprint, outputs; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from skyspan.model.change import Observation, ResourceChange
from skyspan.model.value import OutputValue, digest
from skyspan.networks.legs import Leg, summary
from skyspan.networks.wireguard import compare
from skyspan.networks.wireguard.keys import Keys
from skyspan.networks.wireguard.link import Ends
from skyspan.networks.wireguard.parse import Survey


@dataclass(frozen=True, slots=True)
class Look:
    """Every end, as it is to be and as it is."""

    ends: Ends
    keys: Keys
    seen: Sequence[Survey]

    def differences(self) -> tuple[ResourceChange, ...]:
        """What would have to change, on any host."""
        pairs = zip(self.ends, self.seen, strict=True)
        return tuple(item for end, seen in pairs for item in compare.differences(end, self.keys, seen))

    def present(self) -> bool:
        """Whether any host has the interface, and it is ours."""
        pairs = zip(self.ends, self.seen, strict=True)
        return any(seen.present and compare.is_ours(end, seen) for end, seen in pairs)


def observation(look: Look, legs: Sequence[Leg], *, as_applied: bool) -> Observation:
    """What is there. `as_applied` when these very settings were applied: only then is a difference a drift."""
    found = look.differences() if as_applied else ()
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    drift = f"{found[0].address} differs{more}" if found else ""
    failing = summary(legs)
    return Observation(
        exists=True,
        healthy=not failing,
        drifted=bool(found),
        fingerprint=_fingerprint(look, legs),
        reason="; ".join(part for part in (failing, drift) if part),
        outputs=_outputs(look, legs),
        drift=found,
    )


def _fingerprint(look: Look, legs: Sequence[Leg]) -> str:
    """Everything that changes only when somebody changes it: no stamps, no roaming endpoints."""
    facts = [
        [
            [seen.present, seen.up, seen.plane, seen.mtu, seen.public_key, seen.port],
            [[peer.public_key, peer.allowed_ips, peer.keepalive] for peer in seen.peers],
            [seen.addresses, sorted([route.prefix, route.source] for route in seen.own_routes)],
            [dict(seen.digests), {str(family): on for family, on in seen.forwarding.items()}],
            sorted([f"{family} {tool}", admitted] for (family, tool), admitted in seen.filters.docker.items()),
        ]
        for seen in look.seen
    ]
    return digest([facts, [leg.name for leg in legs if not leg.ok]])


def certain_outputs(ends: Ends) -> dict[str, OutputValue]:
    """The outputs that follow from the settings alone."""
    values: dict[str, Any] = {
        "interface": ends[0].interface,
        "addresses": {end.host: list(end.addresses) for end in ends},
        "endpoints": {end.host: end.listens for end in ends},
        "ports": {end.host: end.port for end in ends},
        "routes": {end.host: [str(net) for net in end.destinations] for end in ends},
        "mtu": ends[0].mtu,
    }
    return {name: OutputValue(value) for name, value in values.items()}


def _outputs(look: Look, legs: Sequence[Leg]) -> dict[str, OutputValue]:
    planes = {end.host: seen.plane for end, seen in zip(look.ends, look.seen, strict=True)}
    values: dict[str, Any] = {
        "plane": "/".join(sorted(set(planes.values()) - {""})),
        "planes": planes,
        "public_keys": dict(look.keys.public),
        "ready": all(leg.ok for leg in legs),
        "report": [leg.record() for leg in legs],
    }
    return certain_outputs(look.ends) | {name: OutputValue(value) for name, value in values.items()}
