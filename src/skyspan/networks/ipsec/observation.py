"""What was seen of a link, as the engine wants it: differences, fingerprint, outputs; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from skyspan.model.change import Action, Observation, ResourceChange
from skyspan.model.value import OutputValue, digest
from skyspan.networks.ipsec import compare
from skyspan.networks.ipsec.config import Crypto, files, joined
from skyspan.networks.ipsec.keys import Keys
from skyspan.networks.ipsec.link import EndState
from skyspan.networks.ipsec.parse import Survey
from skyspan.networks.legs import Leg, summary


class Terms(Crypto, Protocol):
    """What a look is judged by; the meaning of each is that of the ipsec settings."""

    @property
    def ca(self) -> str | None:
        """A given CA."""
        ...

    @property
    def expect(self) -> tuple[str, ...]:
        """Services."""
        ...

    @property
    def ready_within(self) -> float:
        """Seconds."""
        ...


@dataclass(frozen=True, slots=True)
class Look:
    """The ends that are ours, as they are to be and as they are."""

    spec: Terms
    ends: tuple[EndState, ...]
    keys: Keys
    seen: Sequence[Survey]

    def files(self, end: EndState) -> dict[str, str]:
        """The files of an end, none while keys are missing: then all that there are differ."""
        return {} if self.keys == Keys() else files(self.spec, end, self.keys)

    def session(self) -> str:
        """What stands for both ends' files."""
        return joined([self.files(end) for end in self.ends])

    def differences_of(self, end: EndState) -> tuple[ResourceChange, ...]:
        """What would have to change on one host."""
        seen = self.seen[self.ends.index(end)]
        return tuple(compare.differences(end, self.files(end), self.session(), seen))

    def differences(self) -> tuple[ResourceChange, ...]:
        """What would have to change, on either host."""
        return tuple(item for end in self.ends for item in self.differences_of(end))

    def due(self, now: float) -> tuple[ResourceChange, ...]:
        """Certificates of ours that are to be renewed."""
        if self.spec.ca is not None:
            return ()
        return tuple(
            ResourceChange(f"{end.host}: certificate {end.own_id}", Action.UPDATE, "in the last third of its life")
            for end in self.ends
            if end.own_id in self.keys.certificates and self.keys.certificates[end.own_id].due(now)
        )


def observation(look: Look, legs: Sequence[Leg], now: float, *, as_applied: bool) -> Observation:
    """What is there. `as_applied` when these very settings were applied: only then is a difference a drift."""
    found = (*look.differences(), *look.due(now)) if as_applied else ()
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    drift = f"{found[0].address} differs{more}" if found else ""
    failing = summary(legs)
    return Observation(
        exists=True,
        healthy=not failing,
        drifted=bool(found),
        fingerprint=_fingerprint(look, legs, found),
        reason="; ".join(part for part in (failing, drift) if part),
        outputs=_outputs(look, legs),
        drift=found,
    )


def _fingerprint(look: Look, legs: Sequence[Leg], found: Sequence[ResourceChange]) -> str:
    """Everything that changes only when somebody changes it: no counters, no numbers of sessions."""
    facts = [
        [
            [seen.answers, end.name in seen.connections, end.plane],
            [seen.interfaces.get(end.interface), sorted([route.prefix, route.source] for route in seen.own_routes)],
            [dict(seen.digests), {str(family): on for family, on in seen.forwarding.items()}],
            sorted([f"{family} {tool}", admitted] for (family, tool), admitted in seen.filters.docker.items()),
        ]
        for end, seen in zip(look.ends, look.seen, strict=True)
    ]
    return digest([facts, [leg.name for leg in legs if not leg.ok], [item.address for item in found]])


def certain_outputs(ends: Sequence[EndState]) -> dict[str, OutputValue]:
    """The outputs that follow from the settings alone."""
    values: Mapping[str, Any] = {
        "name": ends[0].name,
        "addresses": {end.host: list(end.addresses) for end in ends},
        "endpoints": {end.host: end.listens for end in ends},
        "ids": {end.host: end.own_id for end in ends},
        "initiator": next(end.host for end in ends if end.initiates),
        "routes": {end.host: [str(net) for net in end.destinations] for end in ends},
    }
    return {name: OutputValue(value) for name, value in values.items()}


def _outputs(look: Look, legs: Sequence[Leg]) -> dict[str, OutputValue]:
    planes = {end.host: end.plane for end in look.ends}
    values: dict[str, Any] = {
        "plane": "/".join(sorted(set(planes.values()))),
        "planes": planes,
        "interfaces": {end.host: end.interface for end in look.ends},
        "mtu": min(end.mtu for end in look.ends),
        "certificates_end": {name: round(issued.ends) for name, issued in look.keys.certificates.items()},
        "ready": all(leg.ok for leg in legs),
        "report": [leg.record() for leg in legs],
    }
    return certain_outputs(look.ends) | {name: OutputValue(value) for name, value in values.items()}
