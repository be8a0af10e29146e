"""What is done on the speakers, all at once: look, check, switch, take away; failures say on which one."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.contracts.transport import Command, Completed
from skyspan.model.error import SpecError, StageError, ToolFailedError
from skyspan.model.secret import Secret
from skyspan.networks.bgp import commands
from skyspan.networks.bgp.compare import Made, peer_lines
from skyspan.networks.bgp.parse import Survey, parse_survey
from skyspan.networks.bgp.ready import Way, targets_of
from skyspan.networks.bgp.speaking import Instance
from skyspan.networks.failing import by_sudo, failure, words_of
from skyspan.networks.looking import all_of, digest_of


async def survey(instances: Sequence[Instance], ctx: ReadContext) -> list[Survey]:
    """Look at every speaker, with one command each."""
    return await all_of(look(instance, ctx) for instance in instances)


async def look(instance: Instance, ctx: ReadContext) -> Survey:
    """Look at one speaker."""
    host = instance.host
    done = await ctx.places.reach(host).query(commands.survey_command(instance, targets_of(instance)))
    if not done.ok:
        raise _failed(done, instance, f"looking at the routing daemon on {host}")
    try:
        return parse_survey(done.text(), instance)
    except (ValueError, KeyError, IndexError) as error:
        raise ToolFailedError(
            f"what {host} says about its routing daemon cannot be read",
            detail=f"{type(error).__name__}: {error}",
            hint=f"are iproute2 and BIRD 2 or FRR on {host} of this decade?",
        ) from error


async def ping(ways: Sequence[Way], ctx: ReadContext) -> Mapping[tuple[str, str, str], bool]:
    """By host, source and target, whether the ping was answered."""
    hosts = tuple(dict.fromkeys(way.from_host for way in ways))
    found = await all_of(ping_from(host, [way for way in ways if way.from_host == host], ctx) for host in hosts)
    return {(host, *way): answer for host, answers in zip(hosts, found, strict=True) for way, answer in answers.items()}


async def ping_from(host: str, ways: Sequence[Way], ctx: ReadContext) -> Mapping[tuple[str, str], bool]:
    """The same of one host, by source and target; a host that cannot ping answers nothing."""
    lines = [(way.source, way.target) for way in ways]
    done = await ctx.places.reach(host).query(commands.probe_command(lines, sudo=by_sudo(host, ctx)))
    words = (line.split() for line in done.text().splitlines())
    return {(row[0], row[1]): row[2] == "yes" for row in words if len(row) == 3}


async def prepare(instance: Instance, made: Made, ctx: StageContext) -> None:
    """Have the new configuration checked; nothing that runs is touched."""
    config = made.config(instance)
    ctx.report.line(f"generate: checking the configuration of {made.daemon} on {instance.host}")
    done = await ctx.places.reach(instance.host).run(commands.prepare_command(instance, made.daemon, config))
    if not done.ok:
        raise _failed(done, instance, f"checking the configuration of {made.daemon} on {instance.host}")


async def discard(instance: Instance, ctx: StageContext) -> None:
    """Forget a checked configuration that another host's failure made useless; what is left over does no harm."""
    with contextlib.suppress(StageError):
        await ctx.places.reach(instance.host).run(commands.discard_command(instance))


async def switch(instance: Instance, made: Made, seen: Survey, change: str | None, ctx: StageContext) -> None:
    """Give the checked configuration to the daemon; `change` None starts it anew, else its sessions are kept."""
    how = "start" if change is None else "reload"
    ctx.report.line(f"apply: {how} of {made.daemon} on {instance.host}")
    command = commands.switch_command(
        instance,
        (made.daemon, made.metric),
        peer_lines(instance, seen),
        Secret(change or ""),
        reload=change is not None,
    )
    done = await ctx.places.reach(instance.host).run(command)
    if not done.ok:
        raise _failed(done, instance, f"{how} of {made.daemon} on {instance.host}")


async def back(instance: Instance, made: Made, ctx: StageContext) -> None:
    """Go back to the configuration before the last switch; where that fails it is only reported, as there is an error
    already that says more."""
    ctx.report.line(f"apply: {instance.host} goes back to the configuration that ran before")
    command = commands.back_command(instance, digest_of(made.config(instance).reveal()))
    try:
        done = await ctx.places.reach(instance.host).run(command)
    except StageError as error:
        ctx.report.line(f"apply: {instance.host} could not: {error.summary}")
        return
    if not done.ok:
        ctx.report.line(f"apply: {instance.host} could not: {_failed(done, instance, 'going back').summary}")


async def lower(host: str, identity: str, owner: str, ctx: StageContext) -> None:
    """End the daemons and keep the rest; absent is success."""
    await _end(host, commands.lower_command(identity, owner, sudo=by_sudo(host, ctx)), ctx)


async def remove(host: str, identity: str, owner: str, ctx: StageContext) -> None:
    """Take everything away; absent is success."""
    await _end(host, commands.remove_command(identity, owner, sudo=by_sudo(host, ctx)), ctx)


async def _end(host: str, command: Command, ctx: StageContext) -> None:
    done = await ctx.places.reach(host).run(command)
    if not done.ok:
        what = f"ending the routing daemon on {host}"
        raise failure(done, what, words_of(done), host, sudo=by_sudo(host, ctx))


def _failed(done: Completed, instance: Instance, what: str) -> StageError:
    detail = words_of(done, (item.password for item in instance.conversations if item.password is not None))
    if done.exit_code == commands.TAKEN:
        return SpecError(f"{what} is refused: the name is taken", detail=detail, hint="give the stage another name")
    if done.exit_code == commands.REFUSED:
        return SpecError(
            f"{what}: it is refused, and nothing was changed",
            detail=detail,
            hint="a setting is beyond what this version of the daemon takes",
        )
    if done.exit_code == commands.WENT_BACK:
        return ToolFailedError(f"{what} failed, and the configuration of before runs again", detail=detail)
    return failure(done, what, detail, instance.host, sudo=instance.sudo)
