"""What was seen of a tunnel, as the engine wants it: differences, fingerprint, outputs; pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from skyspan.contracts.forwarding import Forward, ForwarderState, ForwardKind
from skyspan.model.change import Action, Observation, ResourceChange
from skyspan.model.value import OutputValue, digest
from skyspan.networks.legs import summary
from skyspan.networks.sshtunnel.ready import Check, described, without_words
from skyspan.networks.sshtunnel.spec import SshTunnelSpec
from skyspan.networks.sshtunnel.through import shown


def creation(spec: SshTunnelSpec) -> tuple[ResourceChange, ...]:
    """Everything that a first apply makes."""
    forwards = (ResourceChange(described(forward), Action.CREATE) for forward in spec.forwarding.forwards)
    return (ResourceChange(f"SSH connection to {spec.through}", Action.CREATE), *forwards)


def differences(spec: SshTunnelSpec, state: ForwarderState) -> tuple[ResourceChange, ...]:
    """What would have to change of a forwarder that runs."""
    return tuple(_differences(spec, state))


def _differences(spec: SshTunnelSpec, state: ForwarderState) -> Iterator[ResourceChange]:
    wanted, now = spec.forwarding, state.forwarding
    if not state.current or now.through != wanted.through:
        note = f"{wanted.through} is reached in another way now: sessions through the tunnel end"
        yield ResourceChange(f"SSH connection to {wanted.through}", Action.REPLACE, note)
    if (now.keepalive_s, now.keepalive_count) != (wanted.keepalive_s, wanted.keepalive_count):
        yield ResourceChange("keepalive", Action.UPDATE)
    have = {forward.name: forward for forward in now.forwards}
    want = {forward.name: forward for forward in wanted.forwards}
    for name, forward in want.items():
        if name not in have:
            yield ResourceChange(described(forward), Action.CREATE)
        elif have[name] != forward:
            yield ResourceChange(described(forward), Action.REPLACE, f"it was {described(have[name])}")
    for name, forward in have.items():
        if name not in want:
            yield ResourceChange(described(forward), Action.DESTROY)


def observation(spec: SshTunnelSpec, state: ForwarderState, found: Sequence[Check], *, as_applied: bool) -> Observation:
    """What is there. `as_applied` when these very settings were applied: only then is a difference a drift."""
    unlike = differences(spec, state) if as_applied else ()
    failing = summary([check.leg for check in found])
    drift = f"{unlike[0].address} differs" if unlike else ""
    values: dict[str, Any] = {"ready": not failing, "report": [check.leg.record() for check in found]}
    return Observation(
        exists=True,
        healthy=not failing,
        drifted=bool(unlike),
        fingerprint=digest(
            [[described(item) for item in state.forwarding.forwards], state.current, without_words(found)]
        ),
        reason="; ".join(part for part in (failing, drift) if part),
        outputs=certain_outputs(spec) | {name: OutputValue(value) for name, value in values.items()},
        drift=unlike,
    )


def certain_outputs(spec: SshTunnelSpec) -> dict[str, OutputValue]:
    """The outputs that follow from the settings alone."""
    forwards = spec.forwarding.forwards
    proxies = {item.name: f"socks5h://{shown(item.listen)}" for item in forwards if item.kind is ForwardKind.DYNAMIC}
    values: dict[str, Any] = {
        "through": spec.through,
        "endpoints": {item.name: shown(item.listen) for item in forwards},
        "forwards": {item.name: _listed(item) for item in forwards},
        "proxies": proxies,
    }
    return {name: OutputValue(value) for name, value in values.items()}


def _listed(forward: Forward) -> dict[str, Any]:
    address, port = forward.listen
    to = {} if forward.to is None else {"to": shown(forward.to)}
    return {"kind": forward.kind.value, "address": address, "port": port} | to
