"""The word to a host that what was changed on it is to stay: its arrival is the proof that the host was not lost."""

from __future__ import annotations

from skyspan.contracts.context import StageContext
from skyspan.contracts.transport import Command, Completed
from skyspan.model.error import NotReadyError, UnreachableError
from skyspan.networks.guard import TAKEN_BACK


async def confirm(host: str, command: Command, changed: tuple[str, float], ctx: StageContext) -> Completed:
    """Run the command that ends the host's timer (`guard.CONFIRM`) and return how it ended otherwise. `changed` is what
    the host takes back, in words, and after how many seconds.

    Raises UnreachableError when the host cannot be reached any more, NotReadyError when it has taken that back.
    """
    what, seconds = changed
    try:
        done = await ctx.places.reach(host).run(command)
    except UnreachableError as error:
        raise UnreachableError(
            f"{host} cannot be reached any more since the link's change: {error.summary}",
            detail=error.detail,
            hint=f"it takes {what} back {seconds:g} s after the change by itself; "
            "is the way to it inside the link's prefixes?",
        ) from error
    if done.exit_code == TAKEN_BACK:
        raise NotReadyError(
            f"{host} took {what} back: no confirmation came in {seconds:g} s",
            hint="try again, with a longer `confirm_within` where the way to the host is slow",
        )
    return done
