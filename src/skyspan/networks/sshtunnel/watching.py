"""How the forwards of a tunnel are probed, diagnosed and repaired while it is up."""

from __future__ import annotations

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.contracts.forwarding import Forward, ForwarderState, ForwardKind, ForwardState, Trouble, TroubleKind
from skyspan.contracts.watch import Cause, Finding, Passage, Repair
from skyspan.model.error import NotReadyError
from skyspan.networks.looking import all_of
from skyspan.networks.sshtunnel.errors import cause_of, error_of
from skyspan.networks.sshtunnel.ready import Check, checks, probed, unready
from skyspan.networks.sshtunnel.spec import SshTunnelSpec
from skyspan.networks.sshtunnel.through import UnaskedError, passes

RECONNECT, REAPPLY, RESTART = "reconnect", "reapply", "restart"
"""The steps of repair. `reapply` gives the forwarder its orders again, which starts one that does not run or answer;
the others end every session through the tunnel."""

HERE = "here"
"""This machine, as the end that is no host."""

_WATCH_S = 0.9
"""A probe of a watcher ends in less than the second that lies between two."""

_REPAIR_S = 8.0
_LOOK_AGAIN_S = 0.05


async def probe(spec: SshTunnelSpec, ctx: ReadContext) -> tuple[Passage, ...]:
    """A connection through every forward."""
    return await _probed(spec, await ctx.forwarder.look(), ctx)


async def _probed(spec: SshTunnelSpec, state: ForwarderState | None, ctx: ReadContext) -> tuple[Passage, ...]:
    return tuple(await all_of(_passage(spec, forward, state, ctx) for forward in spec.forwarding.forwards))


async def _passage(spec: SshTunnelSpec, forward: Forward, state: ForwarderState | None, ctx: ReadContext) -> Passage:
    """One forward, as a probe found it; from the end where it listens to the forward's name."""
    source = spec.through if forward.kind is ForwardKind.REMOTE else HERE
    if state is None:
        return Passage(source, forward.name, passed=False, reason="the forwarder does not run")
    now = state.forwards.get(forward.name, ForwardState(listening=False))
    if not state.connected or not now.listening:
        trouble = (state.trouble if not state.connected else now.trouble) or now.trouble
        return Passage(source, forward.name, passed=False, reason=trouble.summary if trouble else "not connected")
    asked, target = probed(spec, forward.name)
    if not asked:
        return Passage(source, forward.name, passed=True)
    try:
        found = await passes(forward, now, target, ctx, spec.through, _WATCH_S)
    except UnaskedError as error:
        return Passage(source, forward.name, passed=None, reason=str(error))
    return Passage(source, forward.name, passed=found is None, reason=found.summary if found is not None else "")


async def diagnose(spec: SshTunnelSpec, ctx: ReadContext) -> tuple[Finding, ...]:
    """What the forwarder, this machine and the host say."""
    state = await ctx.forwarder.look()
    if state is None:
        words = "the process that holds the SSH connection does not run"
        return (Finding(Cause.DAEMON_DOWN, HERE, words, "skyspan watch starts it again, skyspan up too"),)
    if _mute(state) and state.trouble is not None:
        return (Finding(Cause.DAEMON_DOWN, HERE, state.trouble.summary, state.trouble.hint),)
    return tuple(_finding(check, spec.through) for check in unready(await checks(spec, state, ctx)))


def _mute(state: ForwarderState) -> bool:
    """Whether it is that of a forwarder which does not answer, and so does not say what it forwards."""
    return not state.forwarding.forwards


def _finding(check: Check, host: str) -> Finding:
    trouble = check.trouble
    assert trouble is not None, "it failed"
    here = {TroubleKind.PORT_TAKEN, TroubleKind.NO_SUCH_ADDRESS}
    where = HERE if trouble.kind in here else host
    return Finding(cause_of(trouble), where, f"{check.name}: {trouble.summary}", trouble.hint)


def repairs(spec: SshTunnelSpec) -> tuple[Repair, ...]:
    """Make the connection anew; have a forwarder that runs; start another."""
    return Repair(RECONNECT, spec.through), Repair(REAPPLY, HERE), Repair(RESTART, HERE)


async def repair(spec: SshTunnelSpec, step: Repair, ctx: StageContext) -> None:
    """Take one of them, and wait for the connection. A forward that carries traffic shows that the connection is well:
    then a step is refused, which would mend nothing, and could end the sessions of all of them."""
    state = await ctx.forwarder.look()
    runs = state is not None and not _mute(state)
    passed = [passage for passage in await _probed(spec, state, ctx) if passage.passed] if runs else []
    carrying = [passage.target for passage in passed if _proves(spec, passage)]
    if carrying:
        raise NotReadyError(f"{step.name} on {step.host} cannot help: {carrying[0]} carries traffic through the tunnel")
    made = 0
    if step.name == RECONNECT:
        if state is None or not runs:
            raise NotReadyError("the forwarder does not run or answer, so it cannot reconnect", hint="skyspan up")
        made = state.connections
        await ctx.forwarder.reconnect()
    else:
        await ctx.forwarder.forward(spec.forwarding, anew=step.name == RESTART or not runs)
    until = ctx.clock.monotonic() + _REPAIR_S
    while True:
        state = await ctx.forwarder.look()
        if state is not None and state.connected and state.connections > made:
            return
        if ctx.clock.monotonic() >= until:
            trouble = state.trouble if state is not None else None
            words = f"there is no SSH connection to {spec.through} yet"
            raise error_of(trouble or Trouble(TroubleKind.UNREACHABLE, words))
        await ctx.clock.sleep(_LOOK_AGAIN_S)


def _proves(spec: SshTunnelSpec, passage: Passage) -> bool:
    """Whether its having passed says something of the SSH connection: a proxy alone answers without one."""
    return bool(spec.forwards[passage.target].form.probe)
