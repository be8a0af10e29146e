"""What is done on the members, all at once: look, change, take away; failures say on which one."""

from __future__ import annotations

import json

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.contracts.transport import Command, Completed
from skyspan.model.error import SpecError, StageError, ToolFailedError
from skyspan.model.secret import MASK, Secret, without_auth_keys
from skyspan.networks.failing import by_sudo, failure
from skyspan.networks.tailscale import commands
from skyspan.networks.tailscale.commands import Move, Place
from skyspan.networks.tailscale.compare import Member
from skyspan.networks.tailscale.errors import (
    ControlUnreachableError,
    DaemonUnavailableError,
    InstallFailedError,
    JoinFailure,
    join_error,
)
from skyspan.networks.tailscale.parse import Node, Survey, parse_status, parse_survey
from skyspan.networks.tailscale.spec import TailscaleSpec


def place_of(host: str, ctx: ReadContext) -> Place:
    """The host as this stage acts on it."""
    return Place(host, str(ctx.address), by_sudo(host, ctx))


async def survey(host: str, ctx: ReadContext, *, peers: bool = False) -> Survey:
    """Look at a host, and with `peers` at what it was told of the other members."""
    place = place_of(host, ctx)
    done = await ctx.places.reach(host).query(commands.survey_command(place, peers=peers))
    if not done.ok:
        raise _failed(done, place, f"looking at tailscale on {host}")
    try:
        return parse_survey(done.text())
    except (ValueError, KeyError, IndexError) as error:
        raise ToolFailedError(
            f"what {host} says about tailscale cannot be read",
            detail=f"{type(error).__name__}: {error}",
            hint=f"which version is it? on {host}: tailscale version; tailscale status --json",
        ) from error


async def install(spec: TailscaleSpec, host: str, seen: Survey, ctx: StageContext) -> None:
    """Put Tailscale there, or a newer one."""
    place = place_of(host, ctx)
    command = commands.install_command(place, spec.install.method, spec.install.address, seen.system)
    done = await ctx.places.reach(host).run(command)
    if done.ok:
        return
    error = _failed(done, place, f"installing tailscale on {host}")
    if type(error) is ToolFailedError:
        hint = error.hint or f"can {host} reach {spec.install.address}? `install.source` names a mirror"
        error = InstallFailedError(error.summary, detail=error.detail, hint=hint)
    raise error


async def change(spec: TailscaleSpec, member: Member, move: Move, key: Secret | None, ctx: StageContext) -> None:
    """Carry out a move."""
    place = place_of(member.host, ctx)
    done = await ctx.places.reach(member.host).run(commands.change_command(place, move, spec.join_within, key))
    if done.ok:
        return
    if done.exit_code == commands.NOT_UP or done.timed_out:
        raise _not_up(done, spec, member, key)
    raise _failed(done, place, f"changing the tailnet membership of {member.host}", key)


def _not_up(done: Completed, spec: TailscaleSpec, member: Member, key: Secret | None) -> StageError:
    node = _status(done.text())
    return join_error(
        JoinFailure(
            host=member.host,
            said=_said(done, key),
            state=node.state,
            health=tuple(_masked(line, key) for line in node.health),
            variable=spec.auth_key_env,
            tags=member.tags,
            server=spec.login_server or "",
        )
    )


def _status(text: str) -> Node:
    try:
        return parse_status(text)
    except (ValueError, KeyError, json.JSONDecodeError):
        return Node("")


async def lower(host: str, ctx: StageContext) -> None:
    """Suspend a membership of ours; absent is success, and so is one of somebody else's, which goes on."""
    done = await _run(host, commands.lower_command(place_of(host, ctx)), f"taking tailscale down on {host}", ctx)
    ours = done.text().strip() == "down"
    ctx.report.line(f"stop: {host} is {'down, and stays a member' if ours else 'left as it is: not joined by this'}")


async def restart(host: str, ctx: StageContext) -> None:
    """Restart the daemon."""
    await _run(host, commands.restart_command(place_of(host, ctx)), f"restarting tailscaled on {host}", ctx)


async def remove(host: str, ctx: StageContext) -> None:
    """Take everything of ours away; absent is success."""
    await _run(host, commands.remove_command(place_of(host, ctx)), f"leaving the tailnet on {host}", ctx)


async def _run(host: str, command: Command, what: str, ctx: StageContext) -> Completed:
    done = await ctx.places.reach(host).run(command)
    if not done.ok:
        raise _failed(done, place_of(host, ctx), what)
    return done


async def ping(host: str, target: str, ctx: ReadContext, within: str = "2s") -> str | None:
    """None when the member `target` answered a packet through the tunnel, else the tool's words."""
    done = await ctx.places.reach(host).query(commands.ping_command(place_of(host, ctx), target, within))
    if done.ok and b"pong from" in done.stdout:
        return None
    said = without_auth_keys(done.last_words(2)).replace("\n", "; ")
    return said or "no answer"


def _said(done: Completed, key: Secret | None) -> str:
    return _masked("\n".join(done.stderr.decode(errors="replace").strip().splitlines()[-15:]), key)


def _masked(text: str, key: Secret | None) -> str:
    return without_auth_keys(text.replace(key.reveal(), MASK) if key else text)


def _failed(done: Completed, place: Place, what: str, key: Secret | None = None) -> StageError:
    detail = _said(done, key)
    host = place.host
    if done.exit_code == commands.TAKEN:
        return SpecError(
            f"{what} is refused: another stage manages its membership",
            detail=detail,
            hint="destroy that one first, or take the host out of one of the two",
        )
    if done.exit_code == commands.NO_DAEMON:
        return DaemonUnavailableError(
            f"tailscaled does not answer on {host}",
            detail=detail,
            hint=f"on {host}: systemctl status tailscaled; journalctl -u tailscaled",
        )
    if done.exit_code == commands.UNHEARD:
        return ControlUnreachableError(
            f"{what}: the control server did not hear of it",
            detail=detail,
            hint=f"{host} is logged out on its own side; repeat this when its control server can be reached",
        )
    return failure(done, what, detail, host, sudo=place.sudo)
