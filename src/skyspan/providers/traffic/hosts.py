"""What is done on the hosts: look, start, measure, end; failures say where, and what to do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.contracts.transport import Command, Completed
from skyspan.model.error import NotReadyError, SpecError, StageError, ToolFailedError
from skyspan.providers.traffic import commands
from skyspan.providers.traffic.commands import Role, Where, listen_role, send_role
from skyspan.providers.traffic.ends import Route, where
from skyspan.providers.traffic.figures import Figures
from skyspan.providers.traffic.orders import listener, longest, port_there, sender, without_secrets
from skyspan.providers.traffic.parse import read
from skyspan.providers.traffic.spec import port_range
from skyspan.providers.traffic.survey import Look, parse_survey

T = TypeVar("T")

_LIFETIME_S = 120.0
"""How much longer than its measurement a listener lives whose engine has died; iperf3's waits for one test."""


async def all_of(work: Iterable[Awaitable[T]]) -> list[T]:
    """Do all at once and wait for all, so that nothing goes on unseen; then raise the first failure."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]


async def survey(
    places: Mapping[str | None, Sequence[str]], ctx: ReadContext, *, tools: bool = False
) -> Mapping[str | None, Look]:
    """Look at every host, with one command each; the values are the containers to look into."""

    async def look(host: str | None, containers: Sequence[str]) -> Look:
        command = commands.survey_command(where(host, ctx.address), containers, tools=tools)
        done = await ctx.places.reach(host).query(command)
        if not done.ok:
            raise _failed(done, f"looking at the traffic on {_at(host)}")
        try:
            return parse_survey(done.text())
        except (ValueError, IndexError) as error:
            raise ToolFailedError(
                f"what {_at(host)} says about its traffic cannot be read", detail=f"{type(error).__name__}: {error}"
            ) from error

    found = await all_of(look(host, containers) for host, containers in places.items())
    return dict(zip(places, found, strict=True))


async def start_listener(route: Route, role: Role, ctx: StageContext) -> int:
    """Have something answer at the target; the port it took. Raises SpecError when none is free."""
    done = await _start(route.target, role, ctx)
    if done.exit_code == commands.NOT_AN_ADDRESS:
        # It lies behind a NAT, say: what arrives there arrives at another address of the end.
        everywhere = listener(route.flow, route.tool, "", _lifetime(route))
        done = await _start(route.target, replace(role, program=everywhere), ctx)
    at = route.flow.to.words()
    if done.exit_code == commands.PORTS_TAKEN:
        tried = f"{role.ports[0]}" if len(role.ports) == 1 else f"{min(role.ports)}-{max(role.ports)}"
        raise SpecError(
            f"flow {route.name}: no port of {tried} is free at {at}",
            hint="`ss -lntup` there shows who listens; give another `port`, or other `ports` for the stage",
        )
    if not done.ok:
        raise _failed(done, f"flow {route.name}: listening at {at}", route)
    return int(done.text().split()[-1])


async def start_sender(route: Route, role: Role, ctx: StageContext) -> None:
    """Have traffic go on from the source."""
    done = await _start(route.source, role, ctx)
    if not done.ok:
        raise _failed(done, f"flow {route.name}: starting at {route.flow.from_.words()}", route)


async def _start(place: Where, role: Role, ctx: StageContext) -> Completed:
    done = await ctx.places.reach(place.host).run(commands.start_command(place, role))
    if done.exit_code == commands.FOREIGN:
        raise SpecError(
            f"the folder of this stage on {_at(place.host)} is somebody else's",
            detail=done.last_words(),
            hint="give the stage another name",
        )
    return done


def listening(route: Route, ports: Sequence[int], digest: str = "") -> Role:
    """What answers the flow. `digest` is empty for one that is there for one measurement."""
    program = listener(route.flow, route.tool, route.address, _lifetime(route))
    return Role(listen_role(route.name), "listen", digest or "once", program, route.target_inside, ports)


def _lifetime(route: Route) -> float:
    return 0.0 if route.flow.background else longest(route.flow) + _LIFETIME_S


def candidates(route: Route, ports: str, number: int) -> tuple[int, ...]:
    """The ports to try, in order: each flow begins at another one of the range."""
    if route.flow.port is not None:
        return (route.flow.port,)
    first, last = port_range(ports)
    whole = range(first, last + 1)
    turn = number % len(whole)
    return (*whole[turn:], *whole[:turn])


async def measure(route: Route, ports: Sequence[int], ctx: StageContext) -> tuple[int, Figures]:
    """Measure once, with what answers started before and ended after; the port, and the figures."""
    served = route.flow.served
    try:
        port = port_there(route.flow)
        if served:
            port = await start_listener(route, listening(route, ports), ctx)
        ctx.report.line(f"measure: {route.words()} for {route.flow.duration:g} s")
        program = sender(route.flow, route.tool, route.address, port)
        role, limit = send_role(route.name), longest(route.flow)
        command = commands.measure_command(route.source, role, program, route.source_inside, limit)
        done = await ctx.places.reach(route.source.host).run(command)
    except BaseException:
        # What went wrong is told, not what could not be cleared away after it: the next apply, or destroy, does that.
        with contextlib.suppress(StageError):
            await _cut_off(route, ctx)
        with contextlib.suppress(StageError):
            if served:
                await end(route.target, [listen_role(route.name)], ctx)
        raise
    if done.timed_out:
        await _cut_off(route, ctx)
    if served:
        await end(route.target, [listen_role(route.name)], ctx)
    if done.timed_out:
        return port, Figures(failed=f"it did not end within {limit:g} s")
    said, words = done.text(), done.stderr.decode(errors="replace")
    flow = route.flow
    return port, read(route.tool, without_secrets(flow, said), without_secrets(flow, words), done.exit_code)


async def _cut_off(route: Route, ctx: StageContext) -> None:
    """End what a measurement left running that did not come to its end."""
    sweep = commands.sweep_command(route.source, send_role(route.name), route.source_inside)
    await ctx.places.reach(route.source.host).run(sweep)


async def end(place: Where, roles: Sequence[str], ctx: StageContext) -> None:
    """End some roles and remove their folders."""
    await _change(place.host, commands.end_command(place, roles), "ending traffic", ctx)


async def remove(host: str | None, ctx: StageContext, *, keep: bool = False) -> None:
    """End everything of the stage on a host and, unless it is kept, take it away; absent is success."""
    place = where(host, ctx.address)
    await _change(host, commands.remove_command(place, keep=keep), "ending the traffic", ctx)


async def _change(host: str | None, command: Command, what: str, ctx: StageContext) -> None:
    done = await ctx.places.reach(host).run(command)
    if not done.ok:
        raise _failed(done, f"{what} on {_at(host)}")


def _at(host: str | None) -> str:
    return host or "this machine"


def _failed(done: Completed, what: str, route: Route | None = None) -> StageError:
    words = done.last_words() if route is None else without_secrets(route.flow, done.last_words())
    ended = "took too long" if done.timed_out else f"failed (exit status {done.exit_code})"
    if "No space left on device" in words:
        return NotReadyError(f"{what} {ended}: its disk is full", detail=words, hint="make room there, and try again")
    return ToolFailedError(f"{what} {ended}", detail=words)
