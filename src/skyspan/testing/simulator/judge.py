"""Judges a simulated run: by the auditor, which knows its events alone, and by what a witness of the real world saw."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from skyspan.engine.decide import decide as real_decide
from skyspan.engine.state import restore as real_restore
from skyspan.model.event import EffectIntended
from skyspan.testing.simulator.auditor import audit
from skyspan.testing.simulator.ground import Decide, Restore
from skyspan.testing.simulator.result import Deed, Simulated
from skyspan.testing.simulator.scenario import scenario
from skyspan.testing.simulator.world import simulate


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a seed came to: what was broken, in words, and the run itself unless the engine broke down in it."""

    seed: int
    broken: tuple[str, ...]
    run: Simulated | None = None

    def __str__(self) -> str:
        return f"seed {self.seed}: " + ("; ".join(self.broken[:3]) or "nothing is wrong")


def judge(run: Simulated) -> tuple[str, ...]:
    """Everything that is wrong with a run, in words."""
    violations = audit(run.recorded, epochs=run.epochs, outputs=run.outputs)
    return (*map(str, violations), *witness(run))


def witness(run: Simulated) -> Iterable[str]:
    """What the real world saw that should not have been: an effect twice, without an intent, or two at a time."""
    intents = {
        (item.event.stage, item.event.attempt) for item in run.recorded if isinstance(item.event, EffectIntended)
    }
    by_stage: dict[str, list[Deed]] = {}
    seen: set[tuple[str, int]] = set()
    for deed in run.deeds:
        place = (deed.stage, deed.attempt)
        if place in seen:
            # Unless nothing of it was left: then it had to be done again.
            yield f"attempt {deed.attempt} of {deed.stage} acted twice"
        if place not in intents:
            yield f"attempt {deed.attempt} of {deed.stage} acted without an intent on record"
        if not deed.cut_off:
            seen.add(place)
        by_stage.setdefault(deed.stage, []).append(deed)
    for stage, deeds in by_stage.items():
        for before, after in pairwise(deeds):
            if before.ended is None or before.ended > after.began:
                yield f"attempt {after.attempt} of {stage} acted while attempt {before.attempt} still did"
        if deeds[-1].ended is None:
            yield f"attempt {deeds[-1].attempt} of {stage} was left acting"


def trial(seed: int, decide: Decide = real_decide, restore: Restore = real_restore) -> Verdict:
    """Simulate the scenario of `seed` and judge it. An engine that raises or never ends is judged, too."""
    try:
        run = simulate(scenario(seed), decide, restore)
    except Exception as error:
        return Verdict(seed, (f"{type(error).__name__}: {error}",))
    return Verdict(seed, judge(run), run)
