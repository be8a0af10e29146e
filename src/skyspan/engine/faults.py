"""Named crash points: every place where the engine may be killed between two things that the outside can tell apart.

They are product code: an armed plan kills this very process at the n-th passage of one point, so that tests can kill
it anywhere, and know that they did. Not armed, a passage costs one comparison.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from skyspan.model.error import UsageError


class Fault(StrEnum):
    """The points, in the order of a run. `before` and `after` surround what is durable or visible outside."""

    LEASE_BEFORE = "lease.before"
    LEASE_AFTER = "lease.after"
    REGISTER_BEFORE = "register.before"
    REGISTER_AFTER = "register.after"
    RUN_BEFORE = "run.before"
    RUN_AFTER = "run.after"
    COMMIT_BEFORE = "commit.before"
    COMMIT_AFTER = "commit.after"
    INTENT_BEFORE = "intent.before"
    INTENT_AFTER = "intent.after"
    COMMAND_BEFORE = "command.before"
    COMMAND_STARTED = "command.started"
    COMMAND_ENDED = "command.ended"
    KEPT_BEFORE = "kept.before"
    KEPT_AFTER = "kept.after"
    OUTCOME = "outcome"
    ACK_BEFORE = "ack.before"
    ACK_AFTER = "ack.after"
    RENEW_BEFORE = "renew.before"
    RENEW_AFTER = "renew.after"
    LOG_BEFORE = "log.before"
    LOG_AFTER = "log.after"
    CLOSE_BEFORE = "close.before"
    CLOSE_AFTER = "close.after"
    RELEASE_BEFORE = "release.before"
    RELEASE_AFTER = "release.after"


EFFECTS: Mapping[str, tuple[Fault, Fault | None]] = MappingProxyType(
    {
        "acquire": (Fault.LEASE_BEFORE, Fault.LEASE_AFTER),
        "release": (Fault.RELEASE_BEFORE, Fault.RELEASE_AFTER),
        "renew": (Fault.RENEW_BEFORE, Fault.RENEW_AFTER),
        "save_deployment": (Fault.REGISTER_BEFORE, Fault.REGISTER_AFTER),
        "begin_run": (Fault.RUN_BEFORE, Fault.RUN_AFTER),
        "append": (Fault.COMMIT_BEFORE, Fault.COMMIT_AFTER),
        "append_log": (Fault.LOG_BEFORE, Fault.LOG_AFTER),
        "put": (Fault.KEPT_BEFORE, Fault.KEPT_AFTER),
        "put_soon": (Fault.KEPT_BEFORE, None),
        "remove": (Fault.KEPT_BEFORE, Fault.KEPT_AFTER),
        "start": (Fault.COMMAND_BEFORE, Fault.COMMAND_STARTED),
        "spawn": (Fault.COMMAND_BEFORE, Fault.COMMAND_STARTED),
        "forget": (Fault.ACK_BEFORE, Fault.ACK_AFTER),
        "end_run": (Fault.CLOSE_BEFORE, Fault.CLOSE_AFTER),
    }
)
"""Every call of a run whose effect outlives this process, by its name on the store, on what a stage keeps or on the
keeper, with the points that it is between. One without the second is durable with what is written next. A test holds
every such call to this table, and every method that could be one: a new effect without its points fails it."""


class FaultPlan:
    """Which passage of which point kills this process; none without a `plan`."""

    def __init__(self, plan: str = "") -> None:
        """`plan` is `POINT` or `POINT:N`, N counting passages from 1. Raises UsageError for anything else."""
        name, _, count = plan.partition(":")
        self._point = name
        self._left = 0
        if not plan:
            return
        if name not in {point.value for point in Fault} or not (count or "1").isdigit() or count == "0":
            raise UsageError(f"{plan!r} is no crash point", hint="one of " + ", ".join(Fault))
        self._left = int(count or "1")

    def reach(self, point: str) -> None:
        """Pass `point`; a passage that was planned so is the last thing this process does."""
        if point != self._point:
            return
        self._left -= 1
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)
