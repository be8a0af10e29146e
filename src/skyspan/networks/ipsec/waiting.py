"""How a link that was made is waited for: leg by leg, calling again now and then, with an end and its cause."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from skyspan.contracts.context import StageContext
from skyspan.contracts.watch import Cause, Finding
from skyspan.model.error import CredentialsError, NotReadyError, StageError
from skyspan.networks.ipsec import hosts
from skyspan.networks.ipsec.diagnose import astray, findings
from skyspan.networks.ipsec.observation import Look
from skyspan.networks.ipsec.parse import agrees
from skyspan.networks.ipsec.ready import expected, legs_of
from skyspan.networks.legs import Leg, summary
from skyspan.networks.patience import Patience

_CALL_AGAIN_S = 5.0
"""How long the link is left alone between two attempts to make a session: hammering wedges charon."""

_BELIEVED_S = 2.0
"""How long a refused authentication has to last to be one, as the other side's files may have come just before; and a
lost route or a missing session, as one may have come just before."""


async def until_ready(look: Look, ctx: StageContext) -> tuple[Look, tuple[Leg, ...]]:
    """Wait until every leg holds; call again now and then while nothing can pass, and at once to make several sessions
    one or where libipsec's routes are lost."""
    begun = called = ctx.clock.monotonic()
    patience = Patience.of(look.spec.ready_within, ctx)
    caller = next(end for end in look.ends if end.initiates)
    while True:
        look = replace(look, seen=await hosts.survey(look.ends, ctx, probe=True))
        legs = tuple(legs_of(look.ends, look.keys, look.seen))
        if all(leg.ok for leg in legs):
            legs += await expected(look.spec.expect, look.ends, ctx.places)
        if all(leg.ok for leg in legs):
            for leg in legs:
                ctx.report.line(leg.line())
            return look, legs
        now = ctx.clock.monotonic()
        why = findings(look)
        refused = any(finding.cause in (Cause.AUTHENTICATION, Cause.EXPIRED) for finding in why)
        if patience.ends or (refused and now > begun + _BELIEVED_S):
            raise _not_ready(legs, why)
        seen = look.seen[look.ends.index(caller)]
        several = any(len(survey.established) > 1 for survey in look.seen)
        nothing = not agrees(caller.local_selectors, caller.remote_selectors, seen)
        # The kernel drops libipsec's routes with an address that they name; only a new session sets them again.
        lost = caller.plane == "userspace" and bool(astray(caller, seen)) and now > begun + _BELIEVED_S
        left_alone = _BELIEVED_S if called == begun else _CALL_AGAIN_S
        if ((several or lost) and called == begun) or ((several or nothing) and now > called + left_alone):
            called = now
            await hosts.initiate(caller, ctx)
        await patience.pause()


def _not_ready(legs: Sequence[Leg], why: Sequence[Finding]) -> StageError:
    failed = [leg for leg in legs if not leg.ok]
    detail = "\n".join(leg.line() for leg in legs)
    for finding in why:
        words = f"{finding.where}: {finding.words}"
        if finding.cause in (Cause.AUTHENTICATION, Cause.EXPIRED):
            return CredentialsError(f"the gateways refuse each other: {words}", detail=detail, hint=finding.hint)
    if why:
        return NotReadyError(
            f"the link carries no traffic: {summary(legs)} ({why[0].where}: {why[0].words})",
            detail=detail,
            hint=why[0].hint,
        )
    return NotReadyError(
        f"the link carries no traffic: {summary(legs)}",
        detail=detail,
        hint=next((leg.hint for leg in failed if leg.hint), "give it more time with `ready_within`"),
    )
