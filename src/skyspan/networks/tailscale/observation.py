"""What was seen of a tailnet's members, as the engine wants it: differences, fingerprint, outputs; pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from skyspan.model.change import Observation, ResourceChange
from skyspan.model.value import OutputValue, digest
from skyspan.networks.legs import Leg, summary
from skyspan.networks.tailscale import compare
from skyspan.networks.tailscale.compare import Member
from skyspan.networks.tailscale.parse import Node, Survey
from skyspan.networks.tailscale.spec import TailscaleSpec


@dataclass(frozen=True, slots=True)
class Look:
    """Every member, as it is to be and as it is."""

    members: Sequence[Member]
    seen: Sequence[Survey]

    def differences(self, spec: TailscaleSpec) -> Iterator[ResourceChange]:
        """What would have to change; raises StageError for a membership that is not ours to change."""
        for member, seen in zip(self.members, self.seen, strict=True):
            yield from compare.resources(spec, member, seen)

    def present(self) -> bool:
        """Whether anything is there: a member, or something of ours on a host."""
        return any(
            compare.is_member(member, seen) or seen.owner == member.owner
            for member, seen in zip(self.members, self.seen, strict=True)
        )


def settings_digest(spec: TailscaleSpec, members: Sequence[Member]) -> str:
    """Equal for settings that would make the same."""
    return digest([[_wanted(member) for member in members], spec.install.min_version])


def _wanted(member: Member) -> list[Any]:
    made = [member.fqdn, member.server, list(member.tags), member.by_key, list(member.routes)]
    return [*made, member.accept_dns, member.accept_routes, member.owner]


def observation(look: Look, legs: Sequence[Leg], drift: Sequence[ResourceChange]) -> Observation:
    """What is there. `drift` is what differs from settings that were applied."""
    more = f" (and {len(drift) - 1} more)" if len(drift) > 1 else ""
    differs = f"{drift[0].address} differs{more}: {drift[0].note}" if drift else ""
    failing = summary(legs)
    return Observation(
        exists=True,
        healthy=not failing,
        drifted=bool(drift),
        fingerprint=_fingerprint(look, legs),
        reason="; ".join(part for part in (failing, differs) if part),
        outputs=_outputs(look, legs),
        drift=tuple(drift),
    )


def _fingerprint(look: Look, legs: Sequence[Leg]) -> str:
    """Everything that changes only when somebody changes it: no stamps, no paths."""
    facts = [[seen.version, seen.owner, sorted(seen.marks), *_facts(seen.node or Node(""))] for seen in look.seen]
    prefs = [
        [seen.prefs.server, seen.prefs.hostname, seen.prefs.accept_dns, seen.prefs.accept_routes, seen.prefs.routes]
        for seen in look.seen
    ]
    return digest([facts, prefs, [leg.name for leg in legs if not leg.ok]])


def _facts(node: Node) -> list[Any]:
    return [node.state, node.name, node.suffix, node.addresses, node.tags, node.routes, node.tun, node.expired]


def certain_outputs(members: Sequence[Member]) -> dict[str, OutputValue]:
    """The outputs that follow from the settings alone."""
    values: dict[str, Any] = {
        "tailnet": members[0].domain,
        "fqdns": {member.host: member.fqdn for member in members},
        "routes": {member.host: list(member.routes) for member in members},
    }
    return {name: OutputValue(value) for name, value in values.items()}


def _outputs(look: Look, legs: Sequence[Leg]) -> dict[str, OutputValue]:
    nodes = {member.host: seen.node or Node("") for member, seen in zip(look.members, look.seen, strict=True)}
    values: dict[str, Any] = {
        "addresses": {host: list(node.addresses) for host, node in nodes.items()},
        "tags": {host: list(node.tags) for host, node in nodes.items()},
        "versions": {member.host: seen.version for member, seen in zip(look.members, look.seen, strict=True)},
        "planes": {host: "tun" if node.tun else "userspace" for host, node in nodes.items()},
        "key_expiry": {host: node.key_expiry for host, node in nodes.items()},
        "ready": all(leg.ok for leg in legs),
        "report": [leg.record() for leg in legs],
    }
    return certain_outputs(look.members) | {name: OutputValue(value) for name, value in values.items()}
