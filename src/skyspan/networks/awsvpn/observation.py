"""What was seen of both tunnels and their BGP, as the engine wants it: legs, drift, outputs; pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from skyspan.model.change import Action, Observation, ResourceChange
from skyspan.model.value import OutputValue, digest
from skyspan.networks.awsvpn.spec import AwsVpnSpec
from skyspan.networks.awsvpn.tunnels import SHARED, keys_of
from skyspan.networks.ipsec import compare
from skyspan.networks.ipsec.link import EndState
from skyspan.networks.ipsec.observation import Look
from skyspan.networks.ipsec.observation import observation as observed
from skyspan.networks.ipsec.parse import Survey
from skyspan.networks.ipsec.ready import legs_of
from skyspan.networks.legs import Leg, summary


@dataclass(frozen=True, slots=True)
class View:
    """Both tunnels as they are to be and as they are, and BGP through them; None where there is to be none."""

    looks: tuple[Look, ...]
    bgp: Observation | None = None

    @property
    def ends(self) -> tuple[EndState, ...]:
        """Both tunnels."""
        return tuple(look.ends[0] for look in self.looks)

    @property
    def seen(self) -> tuple[Survey, ...]:
        """What the host says, once for each tunnel."""
        return tuple(look.seen[0] for look in self.looks)

    def present(self) -> bool:
        """Whether the host has a connection of ours."""
        return compare.present(self.ends, self.seen)

    def differences(self) -> tuple[ResourceChange, ...]:
        """What would have to change, BGP included, each once: both tunnels share a daemon."""
        found = [item for look in self.looks for item in look.differences()]
        return tuple({item.address: item for item in (*found, *self._of_bgp())}.values())

    def _of_bgp(self) -> Iterator[ResourceChange]:
        if self.bgp is None:
            return
        if not self.bgp.exists:
            yield ResourceChange(f"{self.ends[0].host}: routing daemon", Action.CREATE, self.bgp.reason)
        yield from self.bgp.drift

    def legs(self) -> Iterator[Leg]:
        """Whether each tunnel carries traffic, and BGP speaks through both."""
        for look in self.looks:
            tunnel = look.ends[0].other
            for leg in legs_of(look.ends, look.keys, look.seen):
                yield leg if tunnel in leg.name else replace(leg, name=f"{tunnel}: {leg.name}")
        if self.bgp is not None:
            reason = "" if self.bgp.exists and self.bgp.healthy else self.bgp.reason or "not ready"
            yield Leg(f"BGP of {self.ends[0].host}", reason)


def views(spec: AwsVpnSpec, ends: Sequence[EndState], seen: Sequence[Survey]) -> tuple[Look, ...]:
    """A look per tunnel: what is expected of the whole is asked for when both are there."""
    alone = spec.model_copy(update={"expect": ()})
    return tuple(Look(alone, (end,), keys_of(spec, end), (survey,)) for end, survey in zip(ends, seen, strict=True))


def observation(view: View, legs: Sequence[Leg], now: float, *, as_applied: bool) -> Observation:
    """What is there. `as_applied` when these very settings were applied: only then is a difference a drift."""
    parts = [observed(look, legs, now, as_applied=as_applied) for look in view.looks]
    found = view.differences() if as_applied else ()
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    drift = f"{found[0].address} differs{more}" if found else ""
    failing = summary(legs)
    prints = [part.fingerprint for part in parts] + ([view.bgp.fingerprint] if view.bgp is not None else [])
    return Observation(
        exists=True,
        healthy=not failing,
        drifted=bool(found),
        fingerprint=digest(prints),
        reason="; ".join(part for part in (failing, drift) if part),
        outputs=_outputs(view, legs),
        drift=found,
    )


def certain_outputs(ends: Sequence[EndState]) -> dict[str, OutputValue]:
    """The outputs that follow from the settings alone."""
    values: dict[str, Any] = {
        "addresses": {ends[0].host: [end.addresses[0] for end in ends]},
        "peers": [end.peer_addresses[0] for end in ends],
        "endpoints": [end.calls for end in ends],
        "id": ends[0].own_id,
        "routes": {ends[0].host: [str(net) for net in ends[0].there]},
    }
    return {name: OutputValue(value) for name, value in values.items()}


def _outputs(view: View, legs: Sequence[Leg]) -> dict[str, OutputValue]:
    ends = view.ends
    values: dict[str, Any] = {
        "plane": ends[0].plane,
        "limit": "" if ends[0].plane == "route" else SHARED,
        "interfaces": [end.interface for end in ends],
        "mtu": ends[0].mtu,
        "up": [end.other for end, seen in zip(ends, view.seen, strict=True) if carries(seen)],
        "ready": all(leg.ok for leg in legs),
        "report": [leg.record() for leg in legs],
    }
    if view.bgp is not None:
        values |= {f"bgp_{name}": view.bgp.outputs[name].value for name in _BGP if name in view.bgp.outputs}
    return certain_outputs(ends) | {name: OutputValue(value) for name, value in values.items()}


_BGP = ("daemons", "received", "refused", "sent")


def carries(seen: Survey) -> bool:
    """Whether a ping through the tunnel was answered."""
    return any(probe.answered for probe in seen.probes)
