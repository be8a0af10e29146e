"""What is done on the gateways: look at both at once, change one after the other; failures say on which one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.contracts.transport import Command, Completed, Stream
from skyspan.model.error import SpecError, StageError, ToolFailedError, ToolMissingError
from skyspan.model.secret import Secret
from skyspan.networks import docker
from skyspan.networks.confirming import confirm
from skyspan.networks.failing import by_sudo, failure, words_of
from skyspan.networks.ipsec import commands
from skyspan.networks.ipsec.compare import DAEMON_PACKAGES, addresses_of, plane_of, refuse_missing_tools, routes_of
from skyspan.networks.ipsec.config import boot_files, bundle
from skyspan.networks.ipsec.link import EndState, plan_ends
from skyspan.networks.ipsec.observation import Look
from skyspan.networks.ipsec.parse import Probed, Survey, parse_held, parse_survey
from skyspan.networks.ipsec.spec import IpsecSpec, Plane
from skyspan.networks.looking import all_of


async def planned(spec: IpsecSpec, ctx: ReadContext, *, probe: bool) -> tuple[tuple[EndState, EndState], list[Survey]]:
    """Both ends as they are to be and as they are: who carries the packets is decided by what the hosts have."""
    wished: Mapping[str, Plane] = {end.host: "route" for end in spec.between}
    if spec.mode == "userspace":
        wished = {end.host: "userspace" for end in spec.between}
    ends = plan_ends(spec, ctx.address, ctx.hosts, wished)
    seen = await survey(ends, ctx, probe=probe)
    for end, found in zip(ends, seen, strict=True):
        refuse_missing_tools(end.host, found)
    planes = {end.host: plane_of(spec.mode, end.host, found) for end, found in zip(ends, seen, strict=True)}
    decided = plan_ends(spec, ctx.address, ctx.hosts, planes)
    if probe and [end.mtu for end in decided] != [end.mtu for end in ends]:
        seen = await survey(decided, ctx, probe=True)
    return decided, seen


def tell_drops(ends: Sequence[EndState], seen: Sequence[Survey], ctx: StageContext) -> None:
    """Say beforehand whose filters drop what the link forwards."""
    for end, found in zip(ends, seen, strict=True):
        for words in docker.dropping(end.admitted_families, found.filters):
            ctx.report.line(f"{end.host}: {words}", Stream.ERR)


async def survey(ends: Sequence[EndState], ctx: ReadContext, *, probe: bool) -> list[Survey]:
    """Look at every end, with one command each."""
    return await all_of(_look(end, ctx, probe=probe) for end in ends)


async def _look(end: EndState, ctx: ReadContext, *, probe: bool) -> Survey:
    done = await ctx.places.reach(end.host).query(commands.survey_command(end, probe=probe))
    if not done.ok:
        raise _failed(done, end.host, f"looking at the link's end on {end.host}", (), sudo=end.sudo)
    try:
        return parse_survey(done.text(), end.name)
    except (ValueError, KeyError, IndexError) as error:
        raise ToolFailedError(
            f"what {end.host} says about its links cannot be read",
            detail=f"{type(error).__name__}: {error}",
            hint=f"are iproute2 and strongSwan (5.7 or later, with swanctl) on {end.host}?",
        ) from error


async def probe(end: EndState, ctx: ReadContext) -> Probed:
    """Ping what is inside the tunnel, from one end. Raises StageError when the end cannot be asked."""
    done = await ctx.places.reach(end.host).query(commands.probe_command(end))
    return Probed(done.ok, parse_held(done.text()))


async def converge(end: EndState, look: Look, ctx: StageContext) -> None:
    """Make an end what it is to be, and have the host keep it; what is so already is not disturbed. The end that calls
    makes the session."""
    ctx.report.line(f"apply: {end.name} on {end.host} ({end.plane}){', which calls' if end.initiates else ''}")
    seen = look.seen[look.ends.index(end)]
    addresses, routes = addresses_of(end, seen), routes_of(end, seen)
    boot = boot_files(end, addresses, [(route.prefix, route.source) for route in routes])
    content = look.files(end) | {"session": look.session()} | boot
    command = commands.converge_command(end, bundle(content), addresses, routes)
    await _run(end, command, f"making the link's end on {end.host}", look.keys.secrets(), ctx)
    changed = ("its firewall, the connection and the new routes", end.confirm_within)
    done = await confirm(end.host, commands.confirm_command(end), changed, ctx)
    if not done.ok:
        raise _failed(done, end.host, f"confirming the change of {end.host}", look.keys.secrets(), sudo=end.sudo)


async def initiate(end: EndState, ctx: StageContext) -> None:
    """End all sessions and make one: only ever on the end that calls."""
    await _run(end, commands.initiate_command(end), f"making the session from {end.host}", (), ctx)


async def restart(end: EndState, ctx: StageContext) -> None:
    """Restart the daemon if it was started for links."""
    await _run(end, commands.restart_command(end), f"restarting charon on {end.host}", (), ctx)


async def _run(end: EndState, command: Command, what: str, secrets: Sequence[Secret], ctx: StageContext) -> None:
    done = await ctx.places.reach(end.host).run(command)
    if not done.ok:
        raise _failed(done, end.host, what, secrets, sudo=end.sudo)


async def lower(host: str, name: str, ctx: StageContext) -> None:
    """End the session of the link `name` and unload its connection; absent is success."""
    await _end(host, commands.lower_command(name, str(ctx.address), sudo=by_sudo(host, ctx)), ctx)


async def remove(host: str, name: str, ctx: StageContext) -> None:
    """Take everything of the link `name` away; absent is success."""
    await _end(host, commands.remove_command(name, str(ctx.address), sudo=by_sudo(host, ctx)), ctx)


async def _end(host: str, command: Command, ctx: StageContext) -> None:
    done = await ctx.places.reach(host).run(command)
    if not done.ok:
        raise _failed(done, host, f"removing the link on {host}", (), sudo=by_sudo(host, ctx))


def _failed(done: Completed, host: str, what: str, secrets: Sequence[Secret], *, sudo: bool) -> StageError:
    detail = words_of(done, secrets)
    if done.exit_code == commands.TAKEN:
        return SpecError(f"{what} is refused: the name is taken", detail=detail, hint="remove what has it")
    if done.exit_code == commands.NO_INTERFACE:
        return ToolMissingError(
            f"the kernel of {host} makes no XFRM interface",
            detail=detail,
            hint="use `mode: policy` or `mode: userspace`, or a kernel of 4.19 or later with xfrm_interface",
        )
    if done.exit_code == commands.FOREIGN:
        return SpecError(
            f"{what} is refused: it would take a connection of others out of the daemon",
            detail=detail,
            hint=f"write that connection into a file below /etc/swanctl/conf.d on {host}",
        )
    if done.exit_code == commands.NO_DAEMON:
        return ToolMissingError(f"{host} has no charon", hint=f"on {host}: apt-get install {DAEMON_PACKAGES}")
    if done.exit_code == commands.NOT_OURS:
        return SpecError(
            f"the daemon of {host} is not restarted: others started it, and it answers",
            detail=detail,
            hint=f"restart it yourself on {host} if its other connections allow",
        )
    return failure(done, what, detail, host, sudo=sudo)
