"""What goes on beside a run: keeping its lease, and looking for a request to cancel it."""

from __future__ import annotations

from typing import Protocol

from skyspan.contracts.context import Clock
from skyspan.contracts.engine import Ledger
from skyspan.contracts.store import Lease
from skyspan.drivers.local.pace import Pace
from skyspan.model.error import FencedError, StoreError


class Watched(Protocol):
    """The run, as its watchers see it."""

    lease: Lease

    def cancel(self, requested_by: str) -> None:
        """Stop in order."""
        ...

    def give_up(self, error: Exception) -> None:
        """Stop because it may not go on."""
        ...


async def keep_lease(run: Watched, store: Ledger, clock: Clock, pace: Pace) -> None:
    """Renew the lease until it is lost.

    A store that does not answer is asked again until the lease has run out: from then on somebody else may act.
    """
    pause = pace.renew_s
    while True:
        await clock.sleep(pause)
        try:
            run.lease = await store.renew(run.lease, clock.now() + pace.lease_s)
            pause = pace.renew_s
        except FencedError as error:
            run.give_up(error)
            return
        except StoreError as error:
            if clock.now() >= run.lease.expires_at:
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
