"""What is done on the hosts of a routes stage: look at them, set, lower and remove routes; failures say on which."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.contracts.transport import Command, Completed
from skyspan.model.error import SpecError, StageError, ToolFailedError
from skyspan.networks.failing import by_sudo, failure, words_of
from skyspan.networks.lifecycle import told
from skyspan.networks.looking import all_of
from skyspan.networks.routes import commands, table
from skyspan.networks.routes.table import HostRoutes, Seen, Taken

T = TypeVar("T")


async def survey(hosts: Sequence[HostRoutes], ctx: ReadContext) -> list[Seen]:
    """Look at every host, with one command each."""
    return await all_of(look(wanted, ctx) for wanted in hosts)


async def look(wanted: HostRoutes, ctx: ReadContext) -> Seen:
    """All of a host's routes, and which way it takes."""
    done = await ctx.places.reach(wanted.host).query(commands.survey_command(wanted))
    return _read(done, wanted, table.parse_seen)


async def probe(wanted: HostRoutes, ctx: ReadContext) -> Taken:
    """Which way a host takes, as fast as can be told."""
    done = await ctx.places.reach(wanted.host).query(commands.probe_command(wanted))
    return _read(done, wanted, table.parse_taken)


def _read(done: Completed, wanted: HostRoutes, parse: Callable[[str], T]) -> T:
    if not done.ok:
        raise _failed(done, wanted, f"looking at the routes of {wanted.host}")
    try:
        return parse(done.text())
    except (ValueError, KeyError) as error:
        raise ToolFailedError(
            f"what {wanted.host} says about its routes cannot be read",
            detail=f"{type(error).__name__}: {error}",
            hint=f"is iproute2 on {wanted.host} of this decade?",
        ) from error


async def set_routes(wanted: HostRoutes, seen: Seen, ctx: StageContext) -> None:
    """Have the host's routes of the stage be what they are to be."""
    found = tuple(table.differences(wanted, seen))
    if not found:
        ctx.report.line(f"apply: {wanted.host} is as it is to be")
        return
    with told(found, ctx):
        await _run(wanted, commands.set_command(wanted), ctx)


async def lower(host: str, ctx: StageContext) -> None:
    """Take a host's routes of the stage away; what they were stays known there."""
    known = _known(host, ctx)
    await _run(known, commands.lower_command(known), ctx)


async def remove(host: str, ctx: StageContext) -> None:
    """Take everything of the stage away from a host."""
    known = _known(host, ctx)
    await _run(known, commands.remove_command(known), ctx)


def _known(host: str, ctx: ReadContext) -> HostRoutes:
    """A host of which nothing is wanted any more."""
    identity = table.identity_of(ctx.address)
    return HostRoutes(host, str(ctx.address), identity, (), (), sudo=by_sudo(host, ctx))


async def _run(wanted: HostRoutes, command: Command, ctx: StageContext) -> None:
    done = await ctx.places.reach(wanted.host).run(command)
    if not done.ok:
        raise _failed(done, wanted, f"changing the routes of {wanted.host}")


def _failed(done: Completed, wanted: HostRoutes, what: str) -> StageError:
    if done.exit_code == commands.TAKEN:
        return SpecError(f"{what} is refused: the name is taken", detail=words_of(done), hint="rename the stage")
    return failure(done, what, words_of(done), wanted.host, sudo=wanted.sudo)
