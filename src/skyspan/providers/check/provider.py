"""How a check stage is driven: all legs at once, each tried until it passes or its time is over."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.contracts.transport import Command, Effect, Reader
from skyspan.model.change import Action, Change, Observation, ResourceChange
from skyspan.model.diagnostic import Diagnostic, Position, Severity
from skyspan.model.error import NotReadyError, StageError
from skyspan.model.value import OutputValue, digest, masked
from skyspan.providers.check.probe import Failed, probe, resolvable
from skyspan.providers.check.spec import CheckSpec, Leg
from skyspan.providers.remembered import Remembered, forget, recall, remember_with_end, stamp_of

_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class LegResult:
    """How one leg went: from where, to what, how long the last try took (ms), and why it failed."""

    start: str
    to: str
    kind: str
    ok: bool
    ms: float
    reason: str
    tries: int

    def record(self) -> dict[str, Any]:
        """As published in the stage's `report`."""
        fields = asdict(self)
        return {"from": fields.pop("start"), **fields}

    def line(self) -> str:
        """For people: `lab-client → 10.20.1.10:8080/tcp: refused after 3 ms`."""
        return f"{_shown(self.start, self.to, self.kind)}: {self.reason or 'ok'} after {self.ms:.0f} ms"


class CheckProvider:
    """Proves that addresses, ports, services and names can be reached, or that they cannot.

    A check exists once it has passed; afterwards it is healthy while all of its legs still pass.
    """

    kind = "check"
    spec = CheckSpec

    async def observe(self, spec: CheckSpec, ctx: ReadContext) -> Observation:
        mark = await recall(ctx.kept)
        if mark is None:
            return Observation.absent("it has not passed yet")
        results = await _try_all(spec, ctx, retry=False)
        failed = [result for result in results if not result.ok]
        if not failed:
            return Observation(True, fingerprint=mark.stamp, outputs=mark.outputs)
        for result in failed:
            ctx.report.line(result.line())
        fingerprint = f"{mark.stamp} failing {' '.join(f'{result.to}/{result.kind}' for result in failed)}"
        return Observation(
            True, healthy=False, fingerprint=fingerprint, reason=_summary(failed, results), outputs=_outputs(results)
        )

    async def plan(self, spec: CheckSpec, seen: Observation, ctx: ReadContext) -> Change:
        if not seen.exists:
            return _change(Action.CREATE, spec, seen, seen.reason)
        mark = await recall(ctx.kept)
        if mark is None or mark.spec != _digest(spec):
            return _change(Action.UPDATE, spec, seen, "its settings changed")
        return Change.none(seen) if seen.healthy else _change(Action.UPDATE, spec, seen, seen.reason)

    async def apply(self, spec: CheckSpec, change: Change, ctx: StageContext) -> Observation:
        results = await _try_all(spec, ctx, retry=True)
        for result in results:
            ctx.report.line(result.line())
        failed = [result for result in results if not result.ok]
        if failed:
            raise NotReadyError(
                _summary(failed, results),
                detail="\n".join(f"{'ok  ' if result.ok else 'FAIL'} {result.line()}" for result in results),
                hint="`retry_for` gives what is still starting more time" if spec.retry_for is None else "",
            )
        stamp = stamp_of(ctx)
        outputs = _outputs(results)
        remember_with_end(ctx.kept, Remembered(True, spec=_digest(spec), stamp=stamp, outputs=outputs))
        return Observation(True, fingerprint=stamp, outputs=outputs)

    async def destroy(self, spec: CheckSpec, ctx: StageContext) -> None:
        await forget(ctx.kept)

    async def preflight(self, settings: Mapping[str, Any], ctx: ReadContext) -> tuple[Diagnostic, ...]:
        """Says when ping is needed here and missing."""
        checks = settings.get("checks")
        pings = isinstance(checks, list | tuple) and any(isinstance(leg, Mapping) and "icmp" in leg for leg in checks)
        if not pings or settings.get("from") is not None or ctx.tools.find("ping") is not None:
            return ()
        hint = "install iputils-ping (Debian) or iputils"
        return (Diagnostic("missing-tool", "ping is not here", Position(""), Severity.ERROR, hint=hint),)


async def _try_all(spec: CheckSpec, ctx: ReadContext, *, retry: bool) -> tuple[LegResult, ...]:
    place = ctx.places.reach(spec.from_)
    if spec.from_ is not None:
        # Without this, a host that is down would pass for one whose ports are closed.
        await place.query(Command(("true",), effect=Effect.READ))
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_try_leg(leg, spec, place, ctx, retry=retry)) for leg in spec.checks]
    except* StageError as failed:
        # What is wrong with the place itself is wrong for every leg: once is enough.
        raise failed.exceptions[0] from None
    return tuple(task.result() for task in tasks)


async def _try_leg(leg: Leg, spec: CheckSpec, place: Reader, ctx: ReadContext, *, retry: bool) -> LegResult:
    until = ctx.clock.monotonic() + ((leg.retry_for or spec.retry_for or 0.0) if retry else 0.0)
    until = until if ctx.deadline is None else min(until, ctx.deadline)
    tries = 0
    while True:
        tries += 1
        begun = ctx.clock.monotonic()
        reason = await _once(leg, place, ctx)
        ms = round((ctx.clock.monotonic() - begun) * 1000, 1)
        if not reason or ctx.clock.monotonic() + _PAUSE_S >= until:
            return LegResult(spec.from_ or "here", leg.target, leg.kind, not reason, ms, reason, tries)
        await ctx.clock.sleep(_PAUSE_S)


async def _once(leg: Leg, place: Reader, ctx: ReadContext) -> str:
    """Why the leg fails; empty when it passes."""
    try:
        if leg.refused:
            unresolved = await resolvable(leg, place)
            if unresolved:
                return unresolved
        await probe(leg, place, ctx.clock)
    except Failed as failure:
        return "" if leg.refused and failure.closed else failure.reason
    except TimeoutError:
        return "" if leg.refused else f"no answer in {leg.timeout:g} s"
    return "reachable, but it must not be" if leg.refused else ""


def _change(action: Action, spec: CheckSpec, seen: Observation, reason: str) -> Change:
    start = spec.from_ or "here"
    resources = tuple(
        ResourceChange(_shown(start, leg.target, leg.kind), action, "must be refused" if leg.refused else "")
        for leg in spec.checks
    )
    meaning = f"{action.value} {digest(masked(spec.model_dump()))}"
    return Change(action, reason, resources, based_on=seen.fingerprint, meaning=meaning)


def _shown(start: str, to: str, kind: str) -> str:
    """An address for http says what it is by itself."""
    return f"{start} → {to}" if kind == "http" else f"{start} → {to}/{kind}"


def _digest(spec: CheckSpec) -> str:
    return digest(spec.model_dump())


def _outputs(results: tuple[LegResult, ...]) -> dict[str, OutputValue]:
    return {"report": OutputValue([result.record() for result in results])}


def _summary(failed: list[LegResult], results: tuple[LegResult, ...]) -> str:
    first = failed[0].line()
    return first if len(results) == 1 else f"{len(failed)} of {len(results)} checks fail: {first}"
