"""What is done on the gateways, all at once: look, change, take away; failures say on which one."""

from __future__ import annotations

from collections.abc import Sequence

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.contracts.transport import Command, Completed
from skyspan.contracts.watch import Passage
from skyspan.model.error import (
    SpecError,
    StageError,
    ToolFailedError,
    ToolMissingError,
)
from skyspan.model.secret import Secret
from skyspan.networks.confirming import confirm
from skyspan.networks.failing import by_sudo, failure, words_of
from skyspan.networks.looking import all_of
from skyspan.networks.wireguard import commands, watch
from skyspan.networks.wireguard.compare import no_tun, routes_of, wrong_plane
from skyspan.networks.wireguard.config import config_text
from skyspan.networks.wireguard.keys import Keys, Place
from skyspan.networks.wireguard.link import Ends, EndState
from skyspan.networks.wireguard.parse import Survey, parse_survey


async def survey(ends: Sequence[EndState], ctx: ReadContext, *, probe: bool) -> list[Survey]:
    """Look at every end, with one command each."""
    return await all_of(_look(end, ctx, probe=probe) for end in ends)


async def _look(end: EndState, ctx: ReadContext, *, probe: bool) -> Survey:
    done = await ctx.places.reach(end.host).query(commands.survey_command(end, probe=probe))
    if not done.ok:
        raise _failed(done, end.host, f"looking at the link's end on {end.host}", (), sudo=end.sudo)
    try:
        return parse_survey(done.text(), end.interface)
    except (ValueError, KeyError, IndexError) as error:
        raise ToolFailedError(
            f"what {end.host} says about its interfaces cannot be read",
            detail=f"{type(error).__name__}: {error}",
            hint=f"are iproute2 and wireguard-tools on {end.host} of this decade?",
        ) from error


async def change(end: EndState, keys: Keys, seen: Survey, ctx: StageContext) -> None:
    """Make the end what it is to be; what is so already is not disturbed."""
    secrets = (*keys.private.values(), *keys.shared.values())
    again = wrong_plane(end, seen)
    steps = (
        (commands.prepare_command(end, config_text(end, keys)), "preparing"),
        (commands.raise_command(end, routes_of(end, seen), again=again), "raising"),
    )
    for command, step in steps:
        ctx.report.line(f"apply: {step} {end.interface} on {end.host}")
        done = await ctx.places.reach(end.host).run(command)
        if not done.ok:
            raise _failed(done, end.host, f"{step} the interface {end.interface} on {end.host}", secrets, sudo=end.sudo)
    await _confirm(end, secrets, ctx)


async def _confirm(end: EndState, secrets: Sequence[Secret], ctx: StageContext) -> None:
    """Have the host keep what was changed, as it could be reached afterwards."""
    changed = ("its firewall and the new routes", end.confirm_within)
    done = await confirm(end.host, commands.confirm_command(end), changed, ctx)
    if not done.ok:
        raise _failed(done, end.host, f"confirming the change of {end.host}'s firewall", secrets, sudo=end.sudo)


async def probe(end: EndState, ctx: ReadContext) -> tuple[Passage, ...]:
    """Ping every peer of an end from there; what cannot be asked is unknown, and no fault of the link."""
    try:
        done = await ctx.places.reach(end.host).query(watch.probe_command(end))
    except StageError as error:
        return tuple(watch.unknown(end, error.summary))
    if done.timed_out:
        return tuple(watch.unknown(end, f"{end.host} takes too long to answer"))
    return tuple(watch.passages(end, done.text()))


async def repair(ends: Ends, end: EndState, keys: Keys, step: str, ctx: StageContext) -> None:
    """Take one step of repair on an end; what is well stays as it is, but for a restart. Ends that hold a session with
    it which it no longer knows are told to call again, where it cannot call them."""
    if step == watch.RERESOLVE:
        done = await ctx.places.reach(end.host).run(watch.reresolve_command(end, keys))
        if not done.ok:
            raise _failed(done, end.host, f"looking up the peers of {end.host}", (), sudo=end.sudo)
        for line in done.text().splitlines():
            ctx.report.line(f"{end.host}: {line}")
        return
    if step == watch.RESTART:
        await lower(Place(end.host, end.interface), end.owner, ctx)
    (seen,) = await survey((end,), ctx, probe=False)
    await change(end, keys, seen, ctx)
    callers = {peer.host for peer in end.peers if not peer.calls}
    if not callers:
        return
    there = tuple(one for one in ends if one == end or one.host in callers)
    whole = watch.Scene(there, keys, await survey(there, ctx, probe=False))
    await all_of(_call_anew(caller, keys, peers, ctx) for caller, peers in watch.stale_callers(whole))


async def _call_anew(end: EndState, keys: Keys, peers: Sequence[str], ctx: StageContext) -> None:
    ctx.report.line(f"repair: {end.host} calls {', '.join(peers)} again")
    done = await ctx.places.reach(end.host).run(watch.call_anew_command(end, keys, peers))
    if not done.ok:
        raise _failed(done, end.host, f"calling again from {end.host}", (), sudo=end.sudo)


async def lower(place: Place, owner: str, ctx: StageContext) -> None:
    """Take the interface away and keep the rest; absent is success."""
    await _end(place, commands.lower_command(place.interface, owner, sudo=by_sudo(place.host, ctx)), ctx)


async def remove(place: Place, owner: str, ctx: StageContext) -> None:
    """Take everything away; absent is success."""
    await _end(place, commands.remove_command(place.interface, owner, sudo=by_sudo(place.host, ctx)), ctx)


async def _end(place: Place, command: Command, ctx: StageContext) -> None:
    done = await ctx.places.reach(place.host).run(command)
    if not done.ok:
        what = f"removing the interface {place.interface} on {place.host}"
        raise _failed(done, place.host, what, (), sudo=by_sudo(place.host, ctx))


def _failed(done: Completed, host: str, what: str, secrets: Sequence[Secret], *, sudo: bool) -> StageError:
    detail = words_of(done, secrets)
    if done.exit_code == commands.TAKEN:
        return SpecError(f"{what} is refused: the name is taken", detail=detail, hint="choose another `interface`")
    if done.exit_code == commands.KERNEL_CANNOT:
        return ToolMissingError(
            f"the kernel of {host} has no WireGuard",
            hint="use `plane: auto` or `plane: userspace`, or a kernel with the wireguard module",
        )
    if done.exit_code == commands.NO_USERSPACE:
        return ToolMissingError(
            f"{host} has neither WireGuard in its kernel nor wireguard-go",
            hint=f"on {host}: apt-get install wireguard-go",
        )
    if done.exit_code == commands.NO_TUN:
        return no_tun(host)
    return failure(done, what, detail, host, sudo=sudo)
