"""When a tunnel is ready: its connection, every listener, and a connection led on through each forward."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from skyspan.contracts.context import ReadContext
from skyspan.contracts.forwarding import (
    Forward,
    ForwarderState,
    ForwardKind,
    ForwardState,
    Place,
    Trouble,
    TroubleKind,
)
from skyspan.model.error import StageError
from skyspan.networks.legs import Leg
from skyspan.networks.looking import all_of
from skyspan.networks.sshtunnel.listening import Listening, listening_command, parse_listening
from skyspan.networks.sshtunnel.spec import Dynamic, SshTunnelSpec, parse_place
from skyspan.networks.sshtunnel.through import UnaskedError, passes, shown

PROBE_S = 3.0
"""How long a connection through a forward may take to be led on, and the host to say who listens on it."""


@dataclass(frozen=True, slots=True)
class Check:
    """One condition, what is in its way, and the forward that it is about."""

    name: str
    trouble: Trouble | None = None
    forward: str = ""

    @property
    def leg(self) -> Leg:
        """As readiness is told."""
        found = self.trouble
        return Leg(self.name) if found is None else Leg(self.name, found.summary, found.hint)


def described(forward: Forward) -> str:
    """A forward in words: who listens, and where it leads."""
    to = f" -> {shown(forward.to)}" if forward.to is not None else " (SOCKS5)"
    return f"{forward.kind.value} {forward.name}: {shown(forward.listen)}{to}"


def probed(spec: SshTunnelSpec, name: str) -> tuple[bool, Place | None]:
    """Whether a connection is to prove the forward, and what a proxy is asked for."""
    form = spec.forwards[name].form
    if isinstance(form, Dynamic):
        return True, parse_place(form.probe) if form.probe is not None else None
    return form.probe, None


async def checks(spec: SshTunnelSpec, state: ForwarderState, ctx: ReadContext) -> tuple[Check, ...]:
    """Every condition, in the order in which one builds on the one before; what takes time is asked all at once."""
    line = Trouble(TroubleKind.UNREACHABLE, "not there yet") if not state.connected else None
    wanted = spec.forwarding.forwards
    asked = [forward for forward in wanted if state.connected and _listening(state, forward) and _asked(spec, forward)]
    there, proven = await asyncio.gather(
        _listening_there(spec, state, ctx),
        all_of(_proven(spec, forward, state, ctx) for forward in asked),
    )
    listening = [
        Check(described(forward), _listens(forward, state, there, spec.through), forward.name) for forward in wanted
    ]
    failing = {check.forward for check in unready(listening)}
    return (
        Check(f"SSH connection to {spec.through}", state.trouble or line),
        *listening,
        *(check for check in proven if check.forward not in failing),
    )


def _listening(state: ForwarderState, forward: Forward) -> bool:
    return state.forwards.get(forward.name, ForwardState(listening=False)).listening


def _asked(spec: SshTunnelSpec, forward: Forward) -> bool:
    return probed(spec, forward.name)[0]


async def _proven(spec: SshTunnelSpec, forward: Forward, state: ForwarderState, ctx: ReadContext) -> Check:
    name = f"connection through {forward.name}"
    _, target = probed(spec, forward.name)
    try:
        trouble = await passes(forward, state.forwards[forward.name], target, ctx, spec.through, PROBE_S)
    except UnaskedError as error:
        trouble = Trouble(TroubleKind.UNREACHABLE, f"{spec.through} cannot be asked: {error}")
    return Check(name, trouble, forward.name)


def _listens(forward: Forward, state: ForwarderState, there: Listening | None, host: str) -> Trouble | None:
    now = state.forwards.get(forward.name, ForwardState(listening=False))
    if forward.kind is not ForwardKind.REMOTE:
        if now.listening:
            return None
        return now.trouble or Trouble(TroubleKind.UNREACHABLE, "nobody listens yet")
    if now.listening:
        return _elsewhere(forward, there, host) if there is not None else None
    if now.trouble is None:
        return Trouble(TroubleKind.UNREACHABLE, f"{host} was not asked to listen yet")
    return _why_refused(forward, now.trouble, there, host) if there is not None else now.trouble


def _why_refused(forward: Forward, trouble: Trouble, there: Listening, host: str) -> Trouble:
    """SSH gives no reason for a refusal: the host itself knows more."""
    address, port = forward.listen
    if there.taken(address, port):
        owner = there.owner(port)
        stale = "an sshd holds it, so an earlier connection may have left it behind: it goes when that sshd notices "
        stale += f"(ClientAliveInterval in the sshd_config of {host}), or with that process"
        return Trouble(
            TroubleKind.PORT_TAKEN_THERE,
            f"port {port} of {host} is taken: {owner} listens there",
            detail=trouble.summary,
            hint=stale if owner.startswith("sshd") else f"`ss -ltnp 'sport = :{port}'` on {host} shows what",
        )
    if port < there.unprivileged and not there.root:
        return Trouble(
            TroubleKind.PORT_FORBIDDEN,
            f"the login on {host} may not listen on port {port}",
            detail=trouble.summary,
            hint="ports below 1024 are for root: take a higher one",
        )
    return Trouble(
        TroubleKind.BIND_REFUSED,
        f"the sshd of {host} refuses to listen on {shown(forward.listen)}, though nothing else does",
        detail=trouble.summary,
        hint=f"in the sshd_config of {host}: is AllowTcpForwarding no or local, or does PermitListen leave it out?",
    )


def _elsewhere(forward: Forward, there: Listening, host: str) -> Trouble | None:
    """An sshd binds loopback or everything, as its GatewayPorts says, without telling (sshd_config(5))."""
    address, port = forward.listen
    bound = there.on(port)
    if not bound or (there.as_asked(address, port) and not _wider(forward, there)):
        return None
    listed = ", ".join(str(at) for at in bound)
    if _wider(forward, there):
        return Trouble(
            TroubleKind.GATEWAY_PORTS,
            f"{host} listens on {listed} with port {port}, where it should on {address} alone: everybody gets in",
            hint=f"set `GatewayPorts clientspecified` or `no` in the sshd_config of {host}",
        )
    return Trouble(
        TroubleKind.GATEWAY_PORTS,
        f"{host} listens on {listed} with port {port} only, not on {address}",
        hint=f"set `GatewayPorts clientspecified` in the sshd_config of {host}",
    )


def _wider(forward: Forward, there: Listening) -> bool:
    """Whether the host listens everywhere though it was asked for one address."""
    address, port = forward.listen
    everywhere = [at for at in there.on(port) if at.is_unspecified]
    return bool(everywhere) and address not in {"0.0.0.0", "::"}


async def _listening_there(spec: SshTunnelSpec, state: ForwarderState, ctx: ReadContext) -> Listening | None:
    """Who listens on the host; None when nothing should, or it cannot be asked, which the forwarder tells well
    enough."""
    if not state.connected or all(forward.kind is not ForwardKind.REMOTE for forward in spec.forwarding.forwards):
        return None
    try:
        async with asyncio.timeout(PROBE_S):
            done = await ctx.places.reach(spec.through).query(listening_command())
    except (StageError, TimeoutError):
        return None
    return parse_listening(done.text()) if done.ok else None


def blocked(forwards: Sequence[Forward], here: Listening, state: ForwarderState | None) -> Iterator[Trouble]:
    """What on this machine is in the way of forwards that the forwarder does not have yet. Nothing can be said beside
    one that does not answer: it may be the one that listens."""
    if state is not None and not state.forwarding.forwards:
        return
    have = {
        forward.listen
        for forward in (state.forwarding.forwards if state is not None else ())
        if forward.kind is not ForwardKind.REMOTE and state is not None and _listening(state, forward)
    }
    ports = {port for _, port in have}
    for forward in forwards:
        address, port = forward.listen
        if forward.kind is ForwardKind.REMOTE or port in ports:
            continue
        if here.taken(address, port):
            yield Trouble(
                TroubleKind.PORT_TAKEN,
                f"{forward.name}: {shown(forward.listen)} is taken on this machine: {here.owner(port)} listens there",
                hint=f"`ss -ltnp 'sport = :{port}'` shows what; end it, or listen on another port",
            )
        elif port < here.unprivileged and not here.root:
            yield Trouble(
                TroubleKind.PORT_FORBIDDEN,
                f"{forward.name}: only root may listen on port {port} of this machine",
                hint="take a port from 1024 on",
            )


def unready(found: Sequence[Check]) -> tuple[Check, ...]:
    """The conditions that fail."""
    return tuple(check for check in found if check.trouble is not None)


def without_words(found: Sequence[Check]) -> list[str]:
    """The names of those that fail, which differ only when the tunnel does."""
    return [replace(check, trouble=None).name for check in unready(found)]
