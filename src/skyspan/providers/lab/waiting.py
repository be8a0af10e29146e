"""When a lab's nodes are ready: what is waited for as settings, one look at it, and waiting until it is so."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any

from pydantic import Field, model_validator

from skyspan.contracts.context import ReadContext
from skyspan.contracts.provider import Spec
from skyspan.contracts.transport import Command, Completed, Effect, Reader
from skyspan.model.composition import Seconds
from skyspan.model.error import NotReadyError, UnreachableError
from skyspan.providers.lab.containers import AS_ROOT

_PAUSE_S = 0.3
_LOOK_S = 20.0
_IN_CONTAINER = AS_ROOT + 'container=$1; shift; as_root docker exec "$container" "$@"'
_BGP = ("sh", "-c", "vtysh -c 'show bgp vrf all summary json' 2>/dev/null || birdc show protocols")


class LabWait(Spec):
    """What a node must come to before the lab counts as ready: exactly one of `command`, `port` and `bgp`."""

    node: str
    """The node's name in the topology."""
    command: str | tuple[str, ...] | None = None
    """A command in the node's container that must end with 0; a text is given to the container's `sh`."""
    contains: str = ""
    """A text that the command must print."""
    port: int | None = Field(default=None, ge=1, le=65535)
    """A TCP port on the node's management address that must accept connections from the lab's host."""
    bgp: bool | str = False
    """BGP sessions of the node (FRR or BIRD 2) that must be established: `true` for all that it has, at least one; or
    one neighbour's address, or BIRD's name of the session."""
    within: Seconds = 60.0
    """How long it may take."""

    @model_validator(mode="after")
    def _one_thing(self) -> LabWait:
        asked = [self.command is not None, self.port is not None, self.bgp is not False]
        if sum(asked) != 1:
            msg = "exactly one of `command`, `port` and `bgp` says what is waited for"
            raise ValueError(msg)
        if self.contains and self.command is None:
            msg = "`contains` needs `command`"
            raise ValueError(msg)
        return self

    def words(self) -> str:
        """What is waited for."""
        if self.port is not None:
            return f"{self.node}: port {self.port}"
        if self.command is not None:
            shown = self.command if isinstance(self.command, str) else " ".join(self.command)
            return f"{self.node}: {shown}" + (f" prints {self.contains!r}" if self.contains else "")
        return f"{self.node}: BGP" + (f" with {self.bgp}" if isinstance(self.bgp, str) else "")


def inside_command(container: str, argv: Sequence[str], *, effect: Effect, timeout_s: float | None = None) -> Command:
    """Run `argv` in a container of the place where this is run, as its default user."""
    return Command(("sh", "-euc", _IN_CONTAINER, "skyspan", container, *argv), timeout_s=timeout_s, effect=effect)


def verdict(wait: LabWait, done: Completed) -> str:
    """Why what its command came to is not what is waited for; empty when it is (pure)."""
    if not done.ok:
        words = done.last_words(2)
        return "no answer in time" if done.timed_out else f"exit status {done.exit_code}" + (f": {words}" * bool(words))
    if wait.bgp is not False:
        return bgp_trouble(done.text(), wait.bgp if isinstance(wait.bgp, str) else "")
    return "" if wait.contains in done.text() else f"it prints {done.text().strip()[-200:]!r}"


def bgp_trouble(text: str, neighbour: str) -> str:
    """Which of the BGP sessions that FRR (`show bgp vrf all summary json`) or BIRD (`show protocols`) lists are not
    established; with `neighbour` only that one counts (pure)."""
    sessions = _frr(text) if text.lstrip().startswith("{") else _bird(text)
    if neighbour:
        sessions = {name: state for name, state in sessions.items() if _same(name, neighbour)}
        if not sessions:
            return f"no session with {neighbour} is known"
    if not sessions:
        return "no session is known"
    return ", ".join(f"{name} is {state}" for name, state in sorted(sessions.items()) if state != "Established")


async def until_ready(
    waits: Sequence[LabWait], containers: Mapping[str, tuple[str, str]], place: Reader, ctx: ReadContext
) -> None:
    """Wait, for one after another (time runs for all of them), until all is so that is waited for.

    `containers` are a node's container and management address by node; `place` is the lab's host. Raises NotReadyError
    that names the node and what it said last.
    """
    begun = ctx.clock.monotonic()
    for wait in waits:
        until = begun + wait.within
        until = until if ctx.deadline is None else min(until, ctx.deadline)
        while trouble := await look(wait, containers, place):
            if ctx.clock.monotonic() + _PAUSE_S >= until:
                raise NotReadyError(
                    f"the lab is not ready: {wait.words()}",
                    detail=trouble,
                    hint=f"look yourself: docker exec -it {containers.get(wait.node, ('', ''))[0] or wait.node} sh",
                )
            await ctx.clock.sleep(_PAUSE_S)
        ctx.report.line(f"ready: {wait.words()}")


async def look(wait: LabWait, containers: Mapping[str, tuple[str, str]], place: Reader) -> str:
    """Why it is not so now; empty when it is."""
    container, address = containers.get(wait.node, ("", ""))
    if wait.port is not None:
        if not address:
            return f"{wait.node} has no management address"
        try:
            connection = await place.dial(address, wait.port, 2.0)
        except UnreachableError as error:
            return error.summary
        await connection.close()
        return ""
    if not container:
        return f"{wait.node} has no container"
    if wait.command is None:
        argv: Sequence[str] = _BGP
    else:
        argv = ("sh", "-c", wait.command) if isinstance(wait.command, str) else wait.command
    return verdict(wait, await place.query(inside_command(container, argv, effect=Effect.READ, timeout_s=_LOOK_S)))


def _frr(text: str) -> dict[str, str]:
    found: dict[str, str] = {}

    def walk(value: Any) -> None:
        if not isinstance(value, dict):
            return
        for name, item in value.items():
            if name == "peers" and isinstance(item, dict):
                found.update({peer: str(state.get("state", "unknown")) for peer, state in item.items()})
            else:
                walk(item)

    walk(json.loads(text))
    return found


def _bird(text: str) -> dict[str, str]:
    """`NAME BGP TABLE STATE SINCE INFO`: a session's state is its info."""
    rows = (line.split() for line in text.splitlines())
    return {row[0]: " ".join(row[5:]) or row[3] for row in rows if len(row) >= 4 and row[1] == "BGP"}


def _same(name: str, neighbour: str) -> bool:
    try:
        return ip_address(name) == ip_address(neighbour)
    except ValueError:
        return name == neighbour
