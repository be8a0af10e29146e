"""Decides what to do about a link that is watched: when it counts as down, which repair comes next, when to wait: pure.

A link is probed once a second. Two misses in a row make it degraded, three make it down; what a host says of itself,
that its daemon or interface is gone, needs only one. Then its repairs are tried, one at a time and on one end at a
time, the gentlest first, beginning with the end that the diagnosis names. When all were tried they are tried again,
after a pause that grows. Where Skyspan cannot reach an end itself it does nothing: that is no fault of the link.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from skyspan.contracts.watch import Cause, Finding, Passage, Repair

DEGRADED_AFTER = 2
DOWN_AFTER = 3
"""Misses in a row, at one probe per second."""

POSTPONED_S = 2.0
"""How long to wait for what has to be mended, or done with, first."""

PATIENCE_S = 15.0
"""How long a link is down before an end is restarted that does not say itself that something of it is gone: sessions
survive a way that is cut for some seconds, and what is made anew has to find each other first."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
"""Between two rounds through the repairs; doubled each time."""

RESTART = "restart"
"""The name of the step that makes an end anew."""

MOST_RESTARTS, RESTARTS_WITHIN_S = 5, 600.0
"""What is restarted more often than that is left alone: restarting does not mend it."""


SEEKING = frozenset({"re-resolve", "re-initiate"})
"""Steps that look for the other end anew; they make nothing that is gone."""

GONE = frozenset({Cause.INTERFACE_MISSING, Cause.DAEMON_DOWN})
"""What a host knows of itself, without a packet from anywhere."""


class Health(StrEnum):
    """How a watched link is."""

    UP = "up"
    DEGRADED = "degraded"
    DOWN = "down"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Watch:
    """What is known of one link. Times are in seconds of one monotonic clock.

    `misses` counts probes in a row in which some direction failed, `found` is what the latest found, `since` is when
    `health` began. `tried` are the repairs of this round, `rounds` the rounds of this outage; nothing is tried before
    `not_before`. `restarts` are the times of the latest restarts.
    """

    health: Health = Health.UNKNOWN
    since: float = 0.0
    misses: int = 0
    found: tuple[Passage, ...] = ()
    down_since: float | None = None
    tried: tuple[Repair, ...] = ()
    rounds: int = 0
    not_before: float = 0.0
    restarts: tuple[float, ...] = ()

    @property
    def failing(self) -> tuple[Passage, ...]:
        """The directions in which nothing passed."""
        return tuple(passage for passage in self.found if passage.passed is False)

    @property
    def repairable(self) -> bool:
        """Whether something fails between ends that Skyspan reaches itself: else the way to them may be what is cut."""
        unasked = {passage.source for passage in self.found if passage.passed is None}
        return any(passage.target not in unasked for passage in self.failing)

    def carries(self, host: str) -> bool:
        """Whether traffic passes between the host and another one, in both directions."""
        passed = {(passage.source, passage.target) for passage in self.found if passage.passed}
        return any(host in way and way[::-1] in passed for way in passed)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a diagnosis says: the hosts that it names, the likeliest first, and those of which something is gone."""

    suspects: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()

    @classmethod
    def of(cls, findings: Sequence[Finding]) -> Evidence:
        """What the findings come to."""
        gone = dict.fromkeys(finding.where for finding in findings if finding.cause in GONE)
        return cls(tuple(dict.fromkeys((*gone, *(finding.where for finding in findings)))), tuple(gone))


@dataclass(frozen=True, slots=True)
class Turn:
    """A change of health, to be told: `lasted_s` is how long the one before did, `failing` the directions that fail."""

    health: Health
    before: Health
    lasted_s: float
    failing: tuple[Passage, ...] = ()


def probed(watch: Watch, found: Sequence[Passage], now: float) -> tuple[Watch, Turn | None]:
    """After one probe of every direction."""
    watch = replace(watch, found=tuple(found))
    if not watch.failing and any(passage.passed is None for passage in found):
        return _become(watch, Health.UNKNOWN, now)
    if not watch.failing:
        well, turn = _become(replace(watch, misses=0), Health.UP, now)
        return replace(well, down_since=None, tried=(), rounds=0, not_before=0.0), turn
    watch = replace(watch, misses=watch.misses + 1)
    if watch.misses >= DOWN_AFTER:
        return _down(watch, now)
    if watch.misses >= DEGRADED_AFTER and watch.health is not Health.DOWN:
        return _become(watch, Health.DEGRADED, now)
    return watch, None


def condemned(watch: Watch, evidence: Evidence, now: float) -> tuple[Watch, Turn | None]:
    """After a diagnosis: a link on which packets were missed because something of an end is gone is down."""
    doubtful = watch.misses > 0 and watch.health in (Health.UP, Health.DEGRADED)
    return _down(watch, now) if evidence.gone and doubtful else (watch, None)


def next_repair(watch: Watch, steps: Sequence[Repair], evidence: Evidence, now: float) -> Repair | None:
    """The repair to try now, if any: the gentlest of the first suspect that has one left, else the gentlest of all.
    Where something of several ends is gone, each of them gets one before any gets another.

    `steps` are in order, the gentlest first."""
    if watch.health is not Health.DOWN or now < watch.not_before or not watch.repairable:
        return None
    left = [step for step in steps if step not in watch.tried and _sensible(watch, step, evidence, now)]
    if not left:
        return None
    touched = {step.host for step in watch.tried}
    hosts = (*(host for host in evidence.gone if host not in touched), *evidence.suspects)
    return next((step for host in hosts for step in left if step.host == host), left[0])


def repaired(watch: Watch, step: Repair, evidence: Evidence, now: float, *, worked: bool = True) -> Watch:
    """After a repair was tried. It gets its time to show, unless it says itself that it did not work, or something of
    another end is gone as well: no packet passes before that is mended too."""
    restarts = watch.restarts
    if step.name == RESTART:
        restarts = (*(at for at in restarts if now - at < RESTARTS_WITHIN_S), now)
    tried = (*watch.tried, step)
    touched = {one.host for one in tried}
    settled = not worked or any(host not in touched for host in evidence.gone)
    return replace(watch, tried=tried, not_before=now if settled else now + step.shows_in_s, restarts=restarts)


def postponed(watch: Watch, now: float) -> Watch:
    """While something else has to be mended, or be done with, first: nothing is tried, and nothing counts as tried."""
    return replace(watch, not_before=max(watch.not_before, now + POSTPONED_S))


def exhausted(watch: Watch, steps: Sequence[Repair], now: float, jitter: float) -> Watch:
    """When nothing is left to try: the next round, after a pause. `jitter` is a number from 0 to 1."""
    if watch.health is not Health.DOWN or now < watch.not_before or not steps:
        return watch
    pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**watch.rounds) * (0.5 + jitter / 2)
    return replace(watch, tried=(), rounds=watch.rounds + 1, not_before=now + pause)


def _sensible(watch: Watch, step: Repair, evidence: Evidence, now: float) -> bool:
    """Whether to think of a step at all: a restart takes away what still works, and helps only so often."""
    if step.name in SEEKING:
        return not evidence.gone
    if step.name != RESTART:
        return True
    recent = [at for at in watch.restarts if now - at < RESTARTS_WITHIN_S]
    began = now if watch.down_since is None else watch.down_since
    patient = step.host in evidence.gone or now - began >= PATIENCE_S
    return len(recent) < MOST_RESTARTS and patient and not watch.carries(step.host)


def _down(watch: Watch, now: float) -> tuple[Watch, Turn | None]:
    down, turn = _become(watch, Health.DOWN, now)
    return (replace(down, down_since=now) if down.down_since is None else down), turn


def _become(watch: Watch, health: Health, now: float) -> tuple[Watch, Turn | None]:
    if health is watch.health:
        return watch, None
    return replace(watch, health=health, since=now), Turn(health, watch.health, now - watch.since, watch.failing)
