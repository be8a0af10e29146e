"""What happens to a simulated run, drawn from a seed: its graph, how each attempt goes, and what strikes when.

A scenario is complete before anything runs: whoever carries it out, in whatever order, meets the same fate.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from skyspan.model.error import Retry, StageError, ToolFailedError, UnreachableError
from skyspan.model.event import RunStarted, StageOutline
from skyspan.model.lifecycle import Verb


class End(Enum):
    """How an attempt ends when nobody stops it."""

    SUCCEEDED = auto()
    UNCHANGED = auto()
    LEFT_OUT = auto()
    LACKING = auto()
    """Skipped for a best-effort stage without which it cannot do; succeeds when there is none that failed."""
    REPORTED_FAILED = auto()
    FAILED = auto()
    FAILED_LATER = auto()
    FAILED_NOW = auto()
    HANGS = auto()

    @property
    def error(self) -> StageError | None:
        """What the attempt fails with."""
        match self:
            case End.FAILED | End.REPORTED_FAILED:
                return ToolFailedError("the tool said no")
            case End.FAILED_LATER:
                return UnreachableError("no answer")
            case End.FAILED_NOW:
                return StageError("once more", retry=Retry.NOW)
            case _:
                return None

    @property
    def touches(self) -> bool:
        """Whether the attempt intends an effect before it ends so."""
        return self not in (End.UNCHANGED, End.LEFT_OUT, End.LACKING)


class Found(Enum):
    """What a recovering engine finds of an effect whose process is gone."""

    DONE = auto()
    ABSENT = auto()
    """It is done again under the same number: its intent is on record."""
    BROKEN = auto()
    """The attempt counts as failed, and may be followed by another."""
    IN_DOUBT = auto()


@dataclass(frozen=True, slots=True)
class Fate:
    """One attempt: it looks for `looks_s`, acts for `acts_s`, and takes `stops_s` to stop when asked once."""

    end: End
    looks_s: float
    acts_s: float
    stops_s: float
    found: Found = Found.DONE


class Moment(Enum):
    """When, within one decision, an engine dies."""

    BEFORE_WRITE = auto()
    AFTER_WRITE = auto()
    AFTER_EFFECTS = auto()


@dataclass(frozen=True, slots=True)
class Crash:
    """The engine dies at its `step`-th decision; with `reboot` the processes it started die too."""

    step: int
    moment: Moment
    reboot: bool


@dataclass(frozen=True, slots=True)
class Stall:
    """The engine stands still at its `step`-th decision until another one has taken over, then goes on unaware."""

    step: int
    wakes_after_s: float


@dataclass(frozen=True, slots=True)
class Scenario:
    """A run and its circumstances. `write_s` passes between a decision and its being durable."""

    seed: int
    started: RunStarted
    fates: Mapping[str, tuple[Fate, ...]]
    cancels_s: tuple[float, ...] = ()
    strikes: tuple[Crash | Stall, ...] = ()
    after_cancel: Crash | Stall | None = None
    """What strikes soon after the first request to cancel; its `step` counts from there."""
    write_s: float = 0.0
    echoes: float = 0.0
    """How likely a report is delivered once more, later."""
    echo_seed: int = field(default=0)

    def fate(self, stage: str, attempt: int) -> Fate:
        """What the attempt meets; the last one told goes for all that follow."""
        fates = self.fates[stage]
        return fates[min(attempt, len(fates)) - 1]


_VERBS = (Verb.UP, Verb.UP, Verb.UP, Verb.DESTROY, Verb.STOP, Verb.CHECK, Verb.PLAN)
_SHAPES = ("sparse", "sparse", "layers", "chain", "fan", "wide")
_GOOD = (End.SUCCEEDED, End.SUCCEEDED, End.SUCCEEDED, End.UNCHANGED, End.LEFT_OUT, End.LACKING)
_TROUBLE = (End.FAILED, End.FAILED_LATER, End.FAILED_LATER, End.FAILED_NOW, End.REPORTED_FAILED, End.HANGS)
_PASSING = (End.FAILED_LATER, End.FAILED_LATER, End.FAILED_NOW)
_FOUND = tuple(Found)


@dataclass(frozen=True, slots=True)
class _Mood:
    """How likely an attempt meets trouble, of which kinds, and how many stages are tried again."""

    trouble: float
    ends: tuple[End, ...]
    patience: float


_MOODS = (
    _Mood(0.0, _TROUBLE, 0.3),
    _Mood(0.05, _TROUBLE, 0.3),
    _Mood(0.2, _TROUBLE, 0.6),
    _Mood(0.6, _TROUBLE, 0.3),
    _Mood(0.5, _PASSING, 0.95),
    _Mood(0.3, _PASSING, 0.8),
)


def scenario(seed: int, *, calm: bool = False) -> Scenario:
    """The scenario of `seed`. A `calm` one has no crashes, stalls or echoes: any driver can carry it out."""
    chance = random.Random(seed)
    mood = chance.choice(_MOODS)
    outlines = _outlines(chance, mood)
    fates = {outline.name: tuple(_fate(chance, mood) for _ in range(min(outline.attempts, 4))) for outline in outlines}
    started = RunStarted(
        chance.choice(_VERBS),
        tuple(outlines),
        concurrency=chance.choice((1, 2, 4, 8, 16)),
        fail_fast=chance.random() < 0.25,
    )
    cancels = chance.choice((0, 0, 0, 0, 1, 2, 3))
    first = (2.0 * len(outlines) + 1.0) * chance.random() ** 2
    times = tuple(first + index * chance.uniform(0.0, 2.0) for index in range(cancels))
    if calm:
        return Scenario(seed, started, fates, times)
    return Scenario(
        seed,
        started,
        fates,
        times,
        strikes=_strikes(chance, 4 * len(outlines)),
        after_cancel=_strike(chance, chance.randint(1, 4)) if chance.random() < 0.5 else None,
        write_s=chance.choice((0.0, 0.0, 0.002, 0.5)),
        echoes=chance.choice((0.0, 0.1, 0.5)),
        echo_seed=chance.getrandbits(32),
    )


def _outlines(chance: random.Random, mood: _Mood) -> list[StageOutline]:
    count = chance.randint(10, 40) if chance.random() < 0.8 else chance.randint(0, 9)
    shape = chance.choice(_SHAPES)
    soft = chance.choice((0.0, 0.2, 0.5))
    outlines = []
    for place in range(count):
        retried = chance.random() < mood.patience
        outlines.append(
            StageOutline(
                f"s{place:02}",
                "simulated",
                _needs(chance, shape, place),
                best_effort=chance.random() < soft,
                attempts=chance.randint(2, 4) if retried else 1,
                backoff_s=chance.choice((0.5, 2.0, 40.0)),
                retry_any=retried and chance.random() < 0.2,
                timeout_s=chance.uniform(0.5, 20.0) if chance.random() < 0.15 else None,
            )
        )
    chance.shuffle(outlines)
    return outlines


def _needs(chance: random.Random, shape: str, place: int) -> tuple[str, ...]:
    match shape:
        case "chain":
            wanted = [place - 1] if place else []
        case "fan":
            wanted = [0] if place else []
        case "layers":
            layer = place // 5
            wanted = [before for before in range((layer - 1) * 5, layer * 5) if layer and chance.random() < 0.5]
        case "sparse":
            wanted = sorted({chance.randrange(place) for _ in range(chance.randint(0, 3))}) if place else []
        case _:
            wanted = []
    names = [f"s{before:02}" for before in wanted]
    # One that is not part of the run does not count.
    return (*names, "elsewhere") if chance.random() < 0.05 else tuple(names)


def _fate(chance: random.Random, mood: _Mood) -> Fate:
    number = chance.random
    end = chance.choice(mood.ends if number() < mood.trouble else _GOOD)
    return Fate(
        end,
        looks_s=number() * number(),
        acts_s=90.0 + 90.0 * number() if end is End.HANGS else 8.0 * number() ** 3,
        stops_s=4.0 * number() ** 2,
        found=chance.choice(_FOUND),
    )


def _strikes(chance: random.Random, steps: int) -> tuple[Crash | Stall, ...]:
    if chance.random() < 0.4:
        return ()
    at = [chance.randint(1, max(steps, 1)) for _ in range(chance.randint(1, 3))]
    if chance.random() < 0.4:
        # Trouble comes in pairs: again while the engine still recovers.
        at.append(at[0] + chance.randint(1, 3))
    strikes = [_strike(chance, step) for step in at]
    return tuple(sorted(strikes, key=_step))


def _strike(chance: random.Random, step: int) -> Crash | Stall:
    if chance.random() < 0.35:
        return Stall(step, chance.uniform(0.0, 60.0))
    return Crash(step, chance.choice(tuple(Moment)), chance.random() < 0.3)


def _step(strike: Crash | Stall) -> int:
    return strike.step
