"""How an http stage is driven: as one request, or as one for each of its items."""

from __future__ import annotations

from typing import TypeAlias

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.model.change import Change, Observation
from skyspan.model.error import SpecError
from skyspan.providers.http.ledger import Ledger
from skyspan.providers.http.many import ManyRequests
from skyspan.providers.http.single import SingleRequest
from skyspan.providers.http.spec import HttpSpec
from skyspan.providers.remembered import recall

_Way: TypeAlias = SingleRequest | ManyRequests


class HttpProvider:
    """Sends HTTP requests, judges the answers and picks outputs from them."""

    kind = "http"
    spec = HttpSpec

    async def observe(self, spec: HttpSpec, ctx: ReadContext) -> Observation:
        return await _way(spec).observe(spec, ctx)

    async def plan(self, spec: HttpSpec, seen: Observation, ctx: ReadContext) -> Change:
        # What was sent the other way could not be undone by these settings.
        if await (recall(ctx.kept) if spec.each is not None else Ledger.load(ctx.kept)) is not None:
            raise SpecError(
                "`each` was added to a stage that is there already, or taken from it",
                hint="give the stage another name: the old one is destroyed then, and the new one made",
            )
        return await _way(spec).plan(spec, seen, ctx)

    async def apply(self, spec: HttpSpec, change: Change, ctx: StageContext) -> Observation:
        return await _way(spec).apply(spec, change, ctx)

    async def destroy(self, spec: HttpSpec, ctx: StageContext) -> None:
        await _way(spec).destroy(spec, ctx)


def _way(spec: HttpSpec) -> _Way:
    return SingleRequest() if spec.each is None else ManyRequests()
