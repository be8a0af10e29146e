"""How an ssh-tunnel stage is driven: have a forwarder do what the settings say, and prove it by traffic through it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.contracts.forwarding import Forward, ForwarderState, TroubleKind
from skyspan.contracts.watch import Finding, Passage, Repair
from skyspan.model.change import Action, Change, Observation, ResourceChange
from skyspan.model.diagnostic import Diagnostic, Position
from skyspan.model.error import NotReadyError, StageError
from skyspan.model.value import digest
from skyspan.networks.lifecycle import Wish, change_to
from skyspan.networks.sshtunnel import observation as seen_as
from skyspan.networks.sshtunnel import watching
from skyspan.networks.sshtunnel.errors import error_of
from skyspan.networks.sshtunnel.listening import Listening, listening_command, parse_listening
from skyspan.networks.sshtunnel.memory import Memory, forget, recall, remember
from skyspan.networks.sshtunnel.ready import Check, blocked, checks, described, unready
from skyspan.networks.sshtunnel.spec import Entry, SshTunnelSpec, parse_listen

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 0.4
"""Between two looks at a tunnel that comes up."""

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

        async def differences() -> Sequence[ResourceChange]:
            state = await ctx.forwarder.look()
            return seen_as.differences(spec, state) if state is not None else ()

        wish = Wish(
            settings=_settings(spec),
            applied=memory.applied,
            creation=seen_as.creation(spec),
            leaving=(),
            outputs=seen_as.certain_outputs(spec),
        )
        return await change_to(wish, seen, differences)

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
        return await watching.probe(spec, ctx)

    async def diagnose(self, spec: SshTunnelSpec, ctx: ReadContext) -> tuple[Finding, ...]:
        """What the forwarder, this machine and the host say."""
        return await watching.diagnose(spec, ctx)

    def repairs(self, spec: SshTunnelSpec, ctx: ReadContext) -> tuple[Repair, ...]:
        """Make the connection anew; have a forwarder that runs; start another."""
        return watching.repairs(spec)

    async def repair(self, spec: SshTunnelSpec, step: Repair, ctx: StageContext) -> None:
        """Take one of them, and wait for the connection; none ends it while a forward carries."""
        await watching.repair(spec, step, ctx)

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
        ends = [{"host": watching.HERE, "prefixes": []}, {"host": spec.through, "prefixes": []}]
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


def _known_forwards(settings: Mapping[str, Any]) -> Any:
    """The forwards that listen here and are known already; what is of a wrong shape is told when it is validated."""
    forwards = settings.get("forwards")
    for name, written in forwards.items() if isinstance(forwards, Mapping) else ():
        try:
            entry = Entry.model_validate(written)
            yield Forward(str(name), entry.kind, parse_listen(entry.form.listen))
        except ValueError:
            continue
