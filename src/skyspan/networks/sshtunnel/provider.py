"""How an ssh-tunnel stage is driven: have a forwarder do what the settings say, and prove it by traffic through it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.contracts.forwarding import Forward, ForwarderState, ForwardKind, ForwardState, Trouble, TroubleKind
from skyspan.contracts.watch import Cause, Finding, Passage, Repair
from skyspan.model.change import Action, Change, Observation, ResourceChange
from skyspan.model.diagnostic import Diagnostic, Position
from skyspan.model.error import NotReadyError, StageError
from skyspan.model.value import digest
from skyspan.networks.sshtunnel import observation as seen_as
from skyspan.networks.sshtunnel.errors import cause_of, error_of
from skyspan.networks.sshtunnel.listening import Listening, listening_command, parse_listening
from skyspan.networks.sshtunnel.memory import Memory, forget, recall, remember
from skyspan.networks.sshtunnel.ready import Check, blocked, checks, described, probed, unready
from skyspan.networks.sshtunnel.spec import Entry, SshTunnelSpec, parse_listen
from skyspan.networks.sshtunnel.through import UnaskedError, passes

RECONNECT, RESTART = "reconnect", "restart"
HERE = "here"
"""This machine, as the end that is no host."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 0.4
"""Between two looks at a tunnel that comes up."""

_WATCH_S = 0.9
"""A probe of a watcher ends in less than the second that lies between two."""

_FATAL = frozenset(
    {
        TroubleKind.PORT_TAKEN,
        TroubleKind.PORT_FORBIDDEN,
        TroubleKind.NO_SUCH_ADDRESS,
        TroubleKind.BIND_REFUSED,
        TroubleKind.GATEWAY_PORTS,
        TroubleKind.FORWARDING_FORBIDDEN,
        TroubleKind.HOST_KEY,
        TroubleKind.CREDENTIALS,
    }
)
"""What waiting does not mend."""

_SURE_AFTER_S = 1.5
"""A trouble of that kind is believed when it lasts: a port may just be being given back."""

_REPAIR_S = 8.0


class SshTunnelProvider:
    """Forwards TCP ports through a host over SSH: from here to what it reaches, back to here, or as a SOCKS5 proxy.

    A small process on this machine holds the connection, and makes it anew when it breaks; it goes on when Skyspan has
    ended. A change of one forward leaves the sessions of the others alone.
    """

    kind = "ssh-tunnel"
    spec = SshTunnelSpec

    async def observe(self, spec: SshTunnelSpec, ctx: ReadContext) -> Observation:
        memory = await recall(ctx.kept)
        if memory is None:
            return Observation.absent("it has not been made yet")
        state = await ctx.forwarder.look()
        if state is None:
            return Observation.absent("its forwarder does not run on this machine")
        found = await checks(spec, state, ctx)
        for check in unready(found):
            ctx.report.line(check.leg.line())
        return seen_as.observation(spec, state, found, as_applied=memory.applied == _settings(spec))

    async def plan(self, spec: SshTunnelSpec, seen: Observation, ctx: ReadContext) -> Change:
        memory = await recall(ctx.kept) or Memory()
        settings = _settings(spec)
        action, reason = Action.UPDATE, seen.reason
        listed: tuple[ResourceChange, ...] = ()
        if not seen.exists:
            action, listed = Action.CREATE, seen_as.creation(spec)
        elif seen.drifted:
            listed = seen.drift
        elif memory.applied == settings:
            # Nothing differs: a tunnel that only carries no traffic is waited for, and its failing condition named.
            if seen.healthy:
                return Change.none(seen)
        else:
            state = await ctx.forwarder.look()
            listed = seen_as.differences(spec, state) if state is not None else ()
            reason = "its settings changed" if memory.applied else "an apply did not come to its end"
        return Change(
            action,
            reason,
            listed,
            based_on=seen.fingerprint,
            meaning=digest([action.value, [(item.address, item.action.value) for item in listed], settings]),
            outputs=seen_as.certain_outputs(spec),
        )

    async def apply(self, spec: SshTunnelSpec, change: Change, ctx: StageContext) -> Observation:
        before = await recall(ctx.kept)
        settings = _settings(spec)
        state = await ctx.forwarder.look()
        for trouble in blocked(spec.forwarding.forwards, await _listening_here(ctx), state):
            raise error_of(trouble)
        # Before it is started, so that destroy knows of it; other settings do not count as applied.
        memory = before if before is not None and before.applied == settings else Memory()
        if memory != before:
            await remember(ctx.kept, memory)
        for forward in spec.forwarding.forwards:
            ctx.report.line(f"generate: {described(forward)}")
        ctx.report.line(f"apply: a forwarder through {spec.through}")
        await ctx.forwarder.forward(spec.forwarding)
        ctx.report.line("validate: the connection, every listener, a connection through each forward")
        try:
            state, found = await _until_ready(spec, ctx)
        except StageError:
            if state is None and not memory.applied:
                # It never worked: it must not go on knocking at a door that is closed to it.
                await ctx.forwarder.end()
            raise
        if memory.applied != settings:
            await remember(ctx.kept, Memory(settings))
        return seen_as.observation(spec, state, found, as_applied=True)

    async def destroy(self, spec: SshTunnelSpec, ctx: StageContext) -> None:
        # Also where nothing is remembered: a process must not be left behind.
        await ctx.forwarder.end()
        if await recall(ctx.kept) is not None:
            await forget(ctx.kept)

    async def stop(self, spec: SshTunnelSpec, ctx: StageContext) -> None:
        """End the connection and free every port."""
        ctx.report.line(f"stop: ending the connection to {spec.through} and what goes through it")
        await ctx.forwarder.end()

    async def start(self, spec: SshTunnelSpec, ctx: StageContext) -> Observation:
        """Bring the tunnel back, and prove it."""
        return await self.apply(spec, Change(Action.UPDATE, "started"), ctx)

    async def probe(self, spec: SshTunnelSpec, ctx: ReadContext) -> tuple[Passage, ...]:
        """A connection through every forward."""
        state = await ctx.forwarder.look()
        forwards = spec.forwarding.forwards
        return tuple(await asyncio.gather(*(_passage(spec, forward, state, ctx) for forward in forwards)))

    async def diagnose(self, spec: SshTunnelSpec, ctx: ReadContext) -> tuple[Finding, ...]:
        """What the forwarder, this machine and the host say."""
        state = await ctx.forwarder.look()
        if state is None:
            words = "the process that holds the SSH connection does not run"
            return (Finding(Cause.DAEMON_DOWN, HERE, words, "skyspan watch starts it again, skyspan up too"),)
        if not state.forwarding.forwards and state.trouble is not None:
            return (Finding(Cause.DAEMON_DOWN, HERE, state.trouble.summary, state.trouble.hint),)
        return tuple(_finding(check, spec.through) for check in unready(await checks(spec, state, ctx)))

    def repairs(self, spec: SshTunnelSpec, ctx: ReadContext) -> tuple[Repair, ...]:
        """Make the connection anew, then the process."""
        return Repair(RECONNECT, spec.through), Repair(RESTART, HERE)

    async def repair(self, spec: SshTunnelSpec, step: Repair, ctx: StageContext) -> None:
        """Take one of them, and wait for the connection."""
        made = 0
        if step.name == RECONNECT:
            before = await ctx.forwarder.look()
            if before is None:
                raise NotReadyError("the forwarder does not run, so it cannot reconnect", hint="skyspan up")
            made = before.connections
            await ctx.forwarder.reconnect()
        else:
            await ctx.forwarder.forward(spec.forwarding, anew=True)
        until = ctx.clock.monotonic() + _REPAIR_S
        while True:
            state = await ctx.forwarder.look()
            if state is not None and state.connected and state.connections > made:
                return
            if ctx.clock.monotonic() >= until:
                trouble = state.trouble if state is not None else None
                words = f"there is no SSH connection to {spec.through} yet"
                raise error_of(trouble or Trouble(TroubleKind.UNREACHABLE, words))
            await ctx.clock.sleep(_FIRST_PAUSE_S)

    async def preflight(self, settings: Mapping[str, Any], ctx: ReadContext) -> tuple[Diagnostic, ...]:
        """Says which ports of this machine are taken, or for root alone."""
        forwards = tuple(_known_forwards(settings))
        if not forwards:
            return ()
        here, state = await _listening_here(ctx), await ctx.forwarder.look()
        return tuple(
            Diagnostic("tunnel-port", trouble.summary, Position(""), hint=trouble.hint)
            for trouble in blocked(forwards, here, state)
        )

    def describe_link(self, spec: SshTunnelSpec) -> Mapping[str, Any]:
        """Both ends, and each forward in words."""
        ends = [{"host": HERE, "prefixes": []}, {"host": spec.through, "prefixes": []}]
        return {"ends": ends, "allow": [described(forward) for forward in spec.forwarding.forwards]}


def _settings(spec: SshTunnelSpec) -> str:
    return digest(spec.model_dump(mode="json"))


async def _listening_here(ctx: ReadContext) -> Listening:
    done = await ctx.places.reach(None).query(listening_command())
    return parse_listening(done.text())


async def _until_ready(spec: SshTunnelSpec, ctx: StageContext) -> tuple[ForwarderState, tuple[Check, ...]]:
    until = ctx.clock.monotonic() + spec.ready_within
    until = until if ctx.deadline is None else min(until, ctx.deadline)
    pause, unsure = _FIRST_PAUSE_S, ctx.clock.monotonic()
    while True:
        state = await ctx.forwarder.look()
        if state is None:
            raise NotReadyError("the forwarder ended at once", hint="skyspan up again; its log says why")
        found = await checks(spec, state, ctx)
        failed = unready(found)
        if not failed:
            for check in found:
                ctx.report.line(check.leg.line())
            return state, found
        sure = [check for check in failed if check.trouble is not None and check.trouble.kind in _FATAL]
        now = ctx.clock.monotonic()
        unsure = unsure if sure else now
        if now - unsure >= _SURE_AFTER_S or now + pause >= until:
            raise _error(sure or failed, found)
        await ctx.clock.sleep(pause)
        pause = min(_LONGEST_PAUSE_S, pause * 2)


def _error(failed: tuple[Check, ...] | list[Check], found: tuple[Check, ...]) -> StageError:
    first = failed[0]
    assert first.trouble is not None, "it failed"
    error = error_of(first.trouble)
    more = f" (and {len(unready(found)) - 1} more)" if len(unready(found)) > 1 else ""
    lines = [first.trouble.detail, *(check.leg.line() for check in found)]
    return type(error)(
        f"{first.name}: {error.summary}{more}",
        detail="\n".join(line for line in lines if line),
        hint=error.hint or "give it more time with `ready_within`",
        retry=error.retry,
    )


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


def _finding(check: Check, host: str) -> Finding:
    trouble = check.trouble
    assert trouble is not None, "it failed"
    here = {TroubleKind.PORT_TAKEN, TroubleKind.NO_SUCH_ADDRESS}
    where = HERE if trouble.kind in here else host
    return Finding(cause_of(trouble), where, f"{check.name}: {trouble.summary}", trouble.hint)


def _known_forwards(settings: Mapping[str, Any]) -> Any:
    """The forwards that listen here and are known already; what is of a wrong shape is told when it is validated."""
    forwards = settings.get("forwards")
    for name, written in forwards.items() if isinstance(forwards, Mapping) else ():
        try:
            entry = Entry.model_validate(written)
            yield Forward(str(name), entry.kind, parse_listen(entry.form.listen))
        except ValueError:
            continue
