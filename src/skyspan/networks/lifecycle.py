"""What planning, changing and destroying have in common for the stages of networks, whatever carries them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from skyspan.contracts.context import StageContext
from skyspan.model.change import Action, Change, Observation, ResourceChange
from skyspan.model.error import StageError
from skyspan.model.value import OutputValue, digest
from skyspan.networks.looking import all_of


@dataclass(frozen=True, slots=True)
class Wish:
    """What the settings ask for. `settings` is a digest of them, `applied` of those of the last apply that came to its
    end, empty when none did. `creation` is what making it from nothing makes, `leaving` what goes from hosts that are
    no longer wanted, `outputs` what follows from the settings alone."""

    settings: str
    applied: str
    creation: Sequence[ResourceChange]
    leaving: Sequence[ResourceChange]
    outputs: Mapping[str, OutputValue]


async def change_to(
    wish: Wish, seen: Observation, differences: Callable[[], Awaitable[Sequence[ResourceChange]]]
) -> Change:
    """What is to be done. The hosts are asked for `differences` only when settings were applied that are others."""
    action, reason = Action.UPDATE, seen.reason
    found: Sequence[ResourceChange] = ()
    if not seen.exists:
        action, found = Action.CREATE, wish.creation
    elif seen.drifted:
        found = seen.drift
    elif wish.applied == wish.settings:
        # Nothing differs: what only carries no traffic is waited for, and its failing leg named.
        if seen.healthy:
            return Change.none(seen)
    else:
        found = await differences()
        reason = "its settings changed" if wish.applied else "an apply did not come to its end"
    listed = (*found, *wish.leaving)
    return Change(
        action,
        reason,
        listed,
        based_on=seen.fingerprint,
        meaning=digest([action.value, [(item.address, item.action.value) for item in listed], wish.settings]),
        outputs=wish.outputs,
    )


@contextmanager
def told(items: Sequence[ResourceChange], ctx: StageContext) -> Iterator[None]:
    """Tell of each change that it begins, and how all of them ended."""
    for item in items:
        ctx.report.progress(item.address, item.action.value, "started", item.note)
    ended = "failed"
    try:
        yield
        ended = "done"
    finally:
        for item in items:
            ctx.report.progress(item.address, item.action.value, ended)


@dataclass(frozen=True, slots=True)
class Removal:
    """What is to go from a host: `address` as it is told, and the work."""

    host: str
    address: str
    work: Callable[[], Awaitable[None]]


async def remove_each(what: str, removals: Sequence[Removal], ctx: StageContext) -> None:
    """Do all at once, and go on past what fails; raises a StageError that says from which hosts `what` is not gone."""
    failed: dict[str, StageError] = {}

    async def remove(one: Removal) -> None:
        ctx.report.progress(one.address, Action.DESTROY.value, "started")
        ended = "done"
        try:
            await one.work()
        except StageError as error:
            failed[one.address], ended = error, "failed"
        ctx.report.progress(one.address, Action.DESTROY.value, ended)

    await all_of(remove(one) for one in removals)
    if failed:
        raise _left(what, removals, failed)


def _left(what: str, removals: Sequence[Removal], failed: Mapping[str, StageError]) -> StageError:
    gone = ", ".join(one.host for one in removals if one.address not in failed)
    left = ", ".join(one.host for one in removals if one.address in failed)
    first = next(iter(failed.values()))
    done = f"removed from {gone}, but not" if gone else "not removed"
    return type(first)(
        f"{what} is {done} from {left}: {first.summary}",
        detail="\n".join(part for error in failed.values() for part in (error.summary, error.detail) if part),
        hint=first.hint or f"destroy again when {left} can be reached",
        retry=first.retry,
    )
