"""What a rehearsal came to: each step with its duration and verdict, and what was left behind (pure data)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """How a step ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


class EventKind(StrEnum):
    """What an event of a rehearsal is about."""

    WORLD = "world"
    STEP = "step"
    LINE = "line"
    VERDICT = "verdict"


@dataclass(frozen=True, slots=True)
class RehearsalEvent:
    """Something to show while it goes on. `at_s` is the time since the rehearsal began, in seconds.

    `world` and `line` carry a line of text (of the world itself, of the step's command); `step` begins a step with its
    title; `verdict` ends it with its verdict, and the reason where it failed.
    """

    kind: EventKind
    at_s: float
    step: str
    text: str

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def restore(cls, document: Mapping[str, Any]) -> RehearsalEvent:
        """The inverse of `document`."""
        return cls(EventKind(document["kind"]), document["at_s"], document["step"], document["text"])


@dataclass(frozen=True, slots=True)
class Finding:
    """What a step came to. `fault` says why it failed; `stages` are the statuses that the command reported."""

    fault: str = ""
    exit_code: int | None = None
    stages: Mapping[str, str] | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StepReport:
    """One step. `detail` says why it failed; `stages` are the statuses that the command reported.

    `figures` are those of a trouble: what `check` said of its stage (`named`), and after how many seconds (`told_s`);
    the stages that `up` touched (`changed`), and how many seconds after the trouble it had ended (`repaired_s`).
    """

    name: str
    title: str
    verdict: Verdict
    duration_s: float
    detail: str = ""
    exit_code: int | None = None
    stages: Mapping[str, str] | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RehearsalReport:
    """The whole. `leftovers` is what the deployment left in the world after its destruction; `links` and `outputs` (by
    stage) are what it was while it was up, as `skyspan links` and `skyspan outputs` say it."""

    composition: str
    steps: tuple[StepReport, ...]
    leftovers: tuple[str, ...]
    boot_s: float
    duration_s: float
    links: tuple[Mapping[str, Any], ...] = ()
    outputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every step did, and nothing is left."""
        return not self.leftovers and all(step.verdict is Verdict.PASSED for step in self.steps)

    def document(self) -> dict[str, Any]:
        """As JSON; published, so a key stays."""
        return {
            "composition": self.composition,
            "passed": self.passed,
            "boot_s": round(self.boot_s, 3),
            "duration_s": round(self.duration_s, 3),
            "steps": [{**asdict(step), "duration_s": round(step.duration_s, 3)} for step in self.steps],
            "leftovers": list(self.leftovers),
            "links": list(self.links),
            "outputs": self.outputs,
        }

    @classmethod
    def restore(cls, document: Mapping[str, Any]) -> RehearsalReport:
        """The inverse of `document`."""
        steps = tuple(StepReport(**{**step, "verdict": Verdict(step["verdict"])}) for step in document["steps"])
        return cls(
            document["composition"],
            steps,
            tuple(document["leftovers"]),
            document["boot_s"],
            document["duration_s"],
            tuple(document["links"]),
            document["outputs"],
        )
