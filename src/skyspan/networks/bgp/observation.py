"""What was seen of the speakers, as the engine wants it: differences, fingerprint, outputs; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from skyspan.model.change import Observation, ResourceChange
from skyspan.model.value import OutputValue, digest
from skyspan.networks.bgp import compare
from skyspan.networks.bgp.parse import Heard, Survey
from skyspan.networks.bgp.speaking import Instance
from skyspan.networks.legs import Leg, summary


@dataclass(frozen=True, slots=True)
class Look:
    """All speakers, as they are to be and as they are."""

    instances: tuple[Instance, ...]
    seen: Sequence[Survey]

    def differences(self) -> tuple[ResourceChange, ...]:
        """What would have to change, on any host."""
        both = zip(self.instances, self.seen, strict=True)
        return tuple(item for instance, seen in both for item in compare.differences(instance, seen))

    def present(self) -> bool:
        """Whether any daemon of ours runs."""
        both = zip(self.instances, self.seen, strict=True)
        return any(seen.alive and compare.is_ours(instance, seen) for instance, seen in both)


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
    facts = [
        [instance.host, seen.alive, dict(seen.facts), sorted(set(compare.peer_lines(instance, seen)) & seen.peered)]
        for instance, seen in zip(look.instances, look.seen, strict=True)
    ]
    return digest([facts, [leg.name for leg in legs if not leg.ok]])


def certain_outputs(instances: Sequence[Instance]) -> dict[str, OutputValue]:
    """The outputs that follow from the settings alone."""
    sessions = [
        {"host": instance.host, "peer": item.peer_host, "local": item.local, "remote": item.peer}
        for instance in instances
        for item in instance.conversations
    ]
    values: dict[str, Any] = {
        "sessions": sessions,
        "router_ids": {instance.host: instance.router_id for instance in instances},
        "announced": {instance.host: [str(net) for net in instance.announce] for instance in instances},
    }
    return {name: OutputValue(value) for name, value in values.items()}


def _outputs(look: Look, legs: Sequence[Leg]) -> dict[str, OutputValue]:
    both = list(zip(look.instances, look.seen, strict=True))
    values: dict[str, Any] = {
        "daemons": {instance.host: seen.daemon for instance, seen in both},
        "received": {instance.host: _exchanged(instance, seen, "received") for instance, seen in both},
        "sent": {instance.host: _exchanged(instance, seen, "sent") for instance, seen in both},
        "refused": {instance.host: _exchanged(instance, seen, "refused") for instance, seen in both},
        "ready": all(leg.ok for leg in legs),
        "report": [leg.record() for leg in legs],
    }
    return certain_outputs(look.instances) | {name: OutputValue(value) for name, value in values.items()}


def _exchanged(instance: Instance, seen: Survey, what: str) -> dict[str, list[str]]:
    """By peer, the prefixes; a peer with a session per IP version is named once."""
    found: dict[str, list[str]] = {}
    for item in instance.conversations:
        prefixes: frozenset[str] = getattr(seen.heard.get(item.name, Heard()), what)
        found.setdefault(item.peer_host, []).extend(sorted(prefixes))
    return found
