"""Decides what to do about a link that is watched: when it counts as down, which repair comes next, when to wait: pure.

A link is probed once a second. Two misses in a row make it degraded, three make it down; then its repairs are tried,
one at a time and on one end at a time, the gentlest first, beginning with the end that the diagnosis names. When all
were tried they are tried again, after a pause that grows. Where Skyspan cannot reach an end itself it does nothing:
that is no fault of the link.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from skyspan.contracts.watch import Passage, Repair

DEGRADED_AFTER = 2
DOWN_AFTER = 3
"""Misses in a row, at one probe per second."""

SETTLE_S = 2.0
"""How long a repair has to show in the probes before the next one is tried."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
"""Between two rounds through the repairs; doubled each time."""

MOST_RESTARTS, RESTARTS_WITHIN_S = 5, 600.0
"""What is restarted more often than that is left alone: restarting does not mend it."""


class Health(StrEnum):
    """How a watched link is."""

    UP = "up"
    DEGRADED = "degraded"
    DOWN = "down"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Watch:
    """What is known of one link. Times are in seconds of one monotonic clock.

    `misses` counts probes in a row in which some direction failed, `since` is when `health` began. `tried` are the
    repairs of this round, `rounds` the rounds of this outage; nothing is tried before `not_before`. `restarts` are the
    times of the latest restarts.
    """

    health: Health = Health.UNKNOWN
    since: float = 0.0
    misses: int = 0
    down_since: float | None = None
    tried: tuple[Repair, ...] = ()
    rounds: int = 0
    not_before: float = 0.0
    restarts: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """A change of health, to be told: `lasted_s` is how long the one before did, `failing` the directions that fail."""

    health: Health
    before: Health
    lasted_s: float
    failing: tuple[Passage, ...] = ()


def probed(watch: Watch, found: Sequence[Passage], now: float) -> tuple[Watch, Turn | None]:
    """After one probe of every direction."""
    failing = tuple(passage for passage in found if passage.passed is False)
    if not failing and any(passage.passed is None for passage in found):
        return _become(watch, Health.UNKNOWN, now, ())
    misses = watch.misses + 1 if failing else 0
    watch = replace(watch, misses=misses)
    if not failing:
        well, turn = _become(watch, Health.UP, now, ())
        return replace(well, down_since=None, tried=(), rounds=0, not_before=0.0), turn
    if misses >= DOWN_AFTER:
        down, turn = _become(watch, Health.DOWN, now, failing)
        return (replace(down, down_since=now) if down.down_since is None else down), turn
    if misses >= DEGRADED_AFTER:
        return _become(watch, Health.DEGRADED, now, failing)
    return watch, None


def next_repair(watch: Watch, steps: Sequence[Repair], suspects: Sequence[str], now: float) -> Repair | None:
    """The repair to try now, if any: the gentlest of the first suspect that has one left, else the gentlest of all.

    `steps` are in order, the gentlest first; `suspects` are the hosts that the diagnosis names."""
    if watch.health is not Health.DOWN or now < watch.not_before:
        return None
    left = [step for step in steps if step not in watch.tried and not _worn_out(watch, step, now)]
    if not left:
        return None
    return next((step for host in suspects for step in left if step.host == host), left[0])


def repaired(watch: Watch, step: Repair, now: float) -> Watch:
    """After a repair was tried, whether it said that it worked or not."""
    restarts = watch.restarts
    if step.name == "restart":
        restarts = (*(at for at in restarts if now - at < RESTARTS_WITHIN_S), now)
    return replace(watch, tried=(*watch.tried, step), not_before=now + SETTLE_S, restarts=restarts)


def exhausted(watch: Watch, steps: Sequence[Repair], now: float, jitter: float) -> Watch:
    """When nothing is left to try: the next round, after a pause. `jitter` is a number from 0 to 1."""
    if watch.health is not Health.DOWN or now < watch.not_before or not steps:
        return watch
    pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**watch.rounds) * (0.5 + jitter / 2)
    return replace(watch, tried=(), rounds=watch.rounds + 1, not_before=now + pause)


def _worn_out(watch: Watch, step: Repair, now: float) -> bool:
    recent = [at for at in watch.restarts if now - at < RESTARTS_WITHIN_S]
    return step.name == "restart" and len(recent) >= MOST_RESTARTS


def _become(watch: Watch, health: Health, now: float, failing: tuple[Passage, ...]) -> tuple[Watch, Turn | None]:
    if health is watch.health:
        return watch, None
    turn = Turn(health, watch.health, now - watch.since, failing)
    return replace(watch, health=health, since=now), turn
