"""Whether containers are up: judged from a look (pure), and waited for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from skyspan.contracts.context import StageContext
from skyspan.model.error import NotReadyError
from skyspan.providers.dockerengine.engine import Engine
from skyspan.providers.dockerengine.parse import Container, Look

_PAUSE_S = 0.3

_LOG_LINES = 20


class Verdict(StrEnum):
    """What a container is, for whoever waits."""

    READY = "ready"
    WAITING = "waiting"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, and why it is not better."""

    verdict: Verdict
    reason: str = ""

    @property
    def ready(self) -> bool:
        """Whether all is well."""
        return self.verdict is Verdict.READY


_READY = Judgement(Verdict.READY)

Wanted: TypeAlias = Mapping[str, bool]
"""By name of container, whether it does its work and ends (true), or is to run (false)."""


Looking: TypeAlias = Callable[[bool], Awaitable[Look]]
"""Looks at the containers alone or, told so, at everything that the stage has there."""


def judge(container: Container | None, *, ends: bool = False) -> Judgement:
    """Whether a container is as it is to be (pure)."""
    if container is None:
        return Judgement(Verdict.FAILED, "it is not there")
    state = container.state
    ended = f"it ended with status {container.exit_code}" + (f": {container.error}" if container.error else "")
    if state == "restarting":
        return Judgement(Verdict.WAITING, f"{ended}, and is restarted again and again ({container.restarts} times)")
    if state in ("exited", "dead"):
        return _READY if ends and container.exit_code == 0 else Judgement(Verdict.FAILED, ended)
    if state != "running":
        words = f": {container.error}" if container.error else ""
        return Judgement(Verdict.FAILED, f"it is {state}, not running{words}")
    if ends:
        return Judgement(Verdict.WAITING, "it has not done its work yet")
    if container.health in ("", "healthy"):
        return _READY
    said = f": {container.said}" if container.said else ""
    return Judgement(Verdict.WAITING, f"its health check says {container.health}{said}")


def steady(before: Look | None, after: Look, wanted: Wanted) -> bool:
    """Whether the containers that have no health check still run as they did in an earlier look (pure)."""
    for name, ends in wanted.items():
        second = after.container(name)
        if ends or second is None or second.health:
            continue
        first = before.container(name) if before is not None else None
        if first is None or (first.started_at, first.restarts) != (second.started_at, second.restarts):
            return False
    return True


async def until_ready(
    engine: Engine,
    wanted: Wanted,
    within_s: float,
    look: Looking,
    ctx: StageContext,
    before: Look | None = None,
    now: Look | None = None,
) -> Look:
    """Wait until every container is ready; the error names those that are not, with the end of their logs.

    `before` is a look of before whatever was done: containers that ran then need not be looked at twice. `now` is a
    first look that was made already. What is returned is a look at everything."""
    until = ctx.clock.monotonic() + within_s
    until = until if ctx.deadline is None else min(until, ctx.deadline)
    # One that ends may have done so already; one that goes on has to be looked at twice in any case.
    everything = now is not None or any(wanted.values())
    seen = now if now is not None else await look(everything)
    while True:
        found = {name: judge(seen.container(name), ends=ends) for name, ends in wanted.items()}
        late = {name: one for name, one in found.items() if not one.ready}
        if late:
            ended = any(one.verdict is Verdict.FAILED for one in late.values())
            if ended or ctx.clock.monotonic() + _PAUSE_S >= until:
                raise await _not_ready(engine, late, seen, within_s)
        settled = not late and steady(before, seen, wanted)
        if settled and everything:
            return seen
        before = before if late else seen
        everything = not late
        if not settled:
            await ctx.clock.sleep(_PAUSE_S)
        seen = await look(everything)


async def _not_ready(engine: Engine, late: Mapping[str, Judgement], seen: Look, within_s: float) -> NotReadyError:
    worst = [name for name, one in late.items() if one.verdict is Verdict.FAILED] or list(late)
    parts = [f"{name}: {engine.clean(one.reason)}" for name, one in late.items()]
    for name in worst:
        container = seen.container(name)
        said = await engine.logs(container.id, _LOG_LINES) if container is not None else ""
        if said:
            parts.append(f"the last lines of {name}:\n{said}")
    waited = "" if late[worst[0]].verdict is Verdict.FAILED else f" within {within_s:g} s"
    return NotReadyError(
        f"{', '.join(worst)} on {engine.where.name} did not come up{waited}: {engine.clean(late[worst[0]].reason)}",
        detail="\n".join(parts),
        hint=f"see docker logs {worst[0]}" + ("; give more time with `ready_within`" if waited else ""),
    )
