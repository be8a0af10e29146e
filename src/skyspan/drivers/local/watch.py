"""What goes on beside a run: keeping its lease, and looking for a request to cancel it."""

from __future__ import annotations

from typing import Protocol

from skyspan.contracts.context import Clock
from skyspan.contracts.engine import Ledger
from skyspan.contracts.store import Lease
from skyspan.drivers.local.pace import Pace
from skyspan.engine.faults import Fault
from skyspan.model.error import FencedError, StoreError


class Watched(Protocol):
    """The run, as its watchers see it."""

    lease: Lease
    held_until: float
    """Until when it is held, as a monotonic time."""

    def reached(self, point: str) -> None:
        """Pass a crash point."""
        ...

    def cancel(self, requested_by: str) -> None:
        """Stop in order."""
        ...

    def give_up(self, error: Exception) -> None:
        """Stop because it may not go on."""
        ...


async def renew(run: Watched, store: Ledger, clock: Clock, pace: Pace) -> None:
    """Renew the lease once. Raises FencedError, after which the run is given up, and StoreError."""
    asked, at = clock.monotonic(), clock.now()
    run.reached(Fault.RENEW_BEFORE)
    try:
        run.lease = await store.renew(run.lease, at + pace.lease_s)
    except FencedError as error:
        run.give_up(error)
        raise
    run.held_until = asked + pace.lease_s
    run.reached(Fault.RENEW_AFTER)


async def keep_lease(run: Watched, store: Ledger, clock: Clock, pace: Pace) -> None:
    """Renew the lease until it is lost.

    A store that does not answer is asked again until the lease has run out: from then on somebody else may act.
    """
    pause = pace.renew_s
    while True:
        await clock.sleep(pause)
        try:
            await renew(run, store, clock, pace)
            pause = pace.renew_s
        except FencedError:
            return
        except StoreError as error:
            # By the clock that nobody can set: one that jumps ahead must not end a run that is well.
            if clock.monotonic() >= run.held_until:
                run.give_up(error)
                return
            pause = pace.again_s


async def watch_for_cancel(run: Watched, run_id: str, store: Ledger, clock: Clock, pace: Pace) -> None:
    """Pass on the request of another process to cancel this run."""
    while True:
        await clock.sleep(pace.poll_s)
        try:
            requested_by = await store.cancel_requested(run_id)
        except StoreError:
            # Whether the store still works is found out by writing to it.
            continue
        if requested_by is not None:
            run.cancel(requested_by)
            return
