"""How a stage with `each` is driven: every item's request as a single one, and what is no item any more undone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import replace

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.model.change import Action, Change, Observation, ResourceChange
from skyspan.model.error import StageError
from skyspan.model.value import OutputValue, digest
from skyspan.providers.http.ledger import Ledger
from skyspan.providers.http.single import SingleRequest, shown_request
from skyspan.providers.http.spec import HttpSpec

_AT_ONCE = 8
"""How many requests are under way together: an inventory is often a small server."""


class ManyRequests:
    """Sends a request for each item; the outputs are maps by the items' keys."""

    def __init__(self) -> None:
        self._single = SingleRequest()

    async def observe(self, spec: HttpSpec, ctx: ReadContext) -> Observation:
        known = await Ledger.load(ctx.kept)
        singles = spec.singles
        seen = dict(zip(singles, await _together(self._see(singles, known or Ledger({}), ctx)), strict=True))
        missing = [key for key, one in seen.items() if not one.exists]
        drifted = [key for key, one in seen.items() if one.exists and one.drifted]
        if known is None and (missing or not seen):
            return Observation.absent("nothing has been sent yet")
        if seen and len(missing) == len(seen) and not set(known.keys if known else ()) - set(seen):
            return Observation.absent(seen[missing[0]].reason)
        return Observation(
            True,
            drifted=bool(missing or drifted),
            fingerprint=digest({key: [one.exists, one.fingerprint] for key, one in seen.items()}),
            reason=_counted("missing", missing, len(seen)) or _counted("not as sent", drifted, len(seen)),
            outputs=_merged(seen),
            drift=tuple(
                ResourceChange(
                    _shown(key, singles[key]), Action.CREATE if key in missing else Action.UPDATE, seen[key].reason
                )
                for key in (*missing, *drifted)
            ),
        )

    async def plan(self, spec: HttpSpec, seen: Observation, ctx: ReadContext) -> Change:
        known = await Ledger.load(ctx.kept) or Ledger({})
        singles = spec.singles
        off = {resource.address: resource for resource in seen.drift}
        changes: dict[str, Change] = {}
        for key, single in singles.items():
            wrong = off.get(_shown(key, single))
            one = Observation(
                exists=seen.exists and (wrong is None or wrong.action is not Action.CREATE),
                drifted=wrong is not None,
                reason=wrong.note if wrong else seen.reason,
            )
            changes[key] = await self._single.plan(single, one, replace(ctx, kept=known.part(key)))
        gone = [key for key in known.keys if key not in singles]
        moving = {key: change for key, change in changes.items() if change.action.changes}
        if seen.exists and not moving and not gone:
            return Change.none(seen)
        action = Action.UPDATE if seen.exists else Action.CREATE
        resources = [
            ResourceChange(_shown(key, singles[key]), change.action, change.reason)
            for key, change in moving.items()
            if change.resources
        ]
        resources += [ResourceChange(_shown(key, known.spec(key)), Action.DESTROY, "no item any more") for key in gone]
        return Change(
            action,
            (seen.reason if not seen.exists or seen.drifted else "") or _what(moving, gone),
            tuple(resources),
            based_on=seen.fingerprint,
            meaning=f"{action.value} {digest({'gone': gone} | {key: one.meaning for key, one in moving.items()})}",
        )

    async def apply(self, spec: HttpSpec, change: Change, ctx: StageContext) -> Observation:
        if change.action is Action.NONE:
            return await self.observe(spec, ctx)
        known = await Ledger.load(ctx.kept) or Ledger({})
        singles = spec.singles
        gone = [key for key in known.keys if key not in singles]
        await known.announce(singles, ctx.kept)
        try:
            made = await _together(
                {key: self._make(key, single, known, ctx) for key, single in singles.items()}
                | {key: self._unmake(key, known, ctx) for key in gone}
            )
        except (Exception, asyncio.CancelledError):
            # What was sent before has been sent.
            known.write_soon(ctx.kept)
            raise
        seen = dict(zip(singles, made[: len(singles)], strict=True))
        known.write_soon(ctx.kept)
        fingerprint = digest({key: [True, one.fingerprint] for key, one in seen.items()})
        return Observation(True, fingerprint=fingerprint, outputs=_merged(seen))

    async def destroy(self, spec: HttpSpec, ctx: StageContext) -> None:
        known = await Ledger.load(ctx.kept)
        if known is not None:
            await _together({key: self._unmake(key, known, ctx) for key in known.keys})
            await Ledger.forget(ctx.kept)

    def _see(
        self, singles: Mapping[str, HttpSpec], known: Ledger, ctx: ReadContext
    ) -> dict[str, Awaitable[Observation]]:
        return {
            key: self._single.observe(single, replace(ctx, kept=known.part(key))) for key, single in singles.items()
        }

    async def _make(self, key: str, spec: HttpSpec, known: Ledger, ctx: StageContext) -> Observation:
        own = replace(ctx, kept=known.writable(key, ctx.kept))
        seen = await self._single.observe(spec, own)
        change = await self._single.plan(spec, seen, own)
        if not change.action.changes:
            return seen
        address = _shown(key, spec)
        ctx.report.progress(address, change.action.value, "started")
        done = await self._single.apply(spec, change, own)
        ctx.report.progress(address, change.action.value, "done")
        return done

    async def _unmake(self, key: str, known: Ledger, ctx: StageContext) -> Observation:
        spec = known.spec(key)
        address = _shown(key, spec)
        ctx.report.progress(address, Action.DESTROY.value, "started")
        await self._single.destroy(spec, replace(ctx, kept=known.writable(key, ctx.kept)))
        await known.drop(key, ctx.kept)
        ctx.report.progress(address, Action.DESTROY.value, "done")
        return Observation.absent()


async def _together(work: Mapping[str, Awaitable[Observation]]) -> list[Observation]:
    """Do it for all items, some at a time; then raise the first failure, naming its item, if there was one."""
    room = asyncio.Semaphore(_AT_ONCE)

    async def one(doing: Awaitable[Observation]) -> Observation:
        async with room:
            return await doing

    done = await asyncio.gather(*map(one, work.values()), return_exceptions=True)
    failed = {key: result for key, result in zip(work, done, strict=True) if isinstance(result, BaseException)}
    for error in failed.values():
        if not isinstance(error, StageError):
            raise error
    for key, error in failed.items():
        assert isinstance(error, StageError), "all others were raised"
        more = f" ({len(failed)} of {len(work)} failed: {', '.join(failed)})" if len(failed) > 1 else ""
        raise type(error)(
            f"{key}: {error.summary}{more}", detail=error.detail, hint=error.hint, retry=error.retry
        ) from error
    return [result for result in done if isinstance(result, Observation)]


def _merged(seen: Mapping[str, Observation]) -> dict[str, OutputValue]:
    """Each output as a map by key; sensitive where any of its values is."""
    found: dict[str, OutputValue] = {}
    for key, one in seen.items():
        for name, output in one.outputs.items():
            so_far = found.get(name, OutputValue({}))
            found[name] = OutputValue({**so_far.value, key: output.value}, so_far.sensitive or output.sensitive)
    return found


def _shown(key: str, spec: HttpSpec) -> str:
    return f"{key}: {shown_request(spec)}"


def _counted(what: str, keys: list[str], of: int) -> str:
    return f"{len(keys)} of {of} {'is' if len(keys) == 1 else 'are'} {what}: {', '.join(keys)}" if keys else ""


def _what(moving: Mapping[str, Change], gone: list[str]) -> str:
    words = [f"{len(moving)} to send" if moving else "", f"{len(gone)} to undo" if gone else ""]
    return ", ".join(word for word in words if word)
