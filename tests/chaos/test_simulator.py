"""Thousands of random runs with crashes, take-overs and repeated reports, judged from their events alone.

`SKYSPAN_SEEDS=FIRST-LAST` or `SKYSPAN_SEEDS=COUNT` simulates others (`make simulate SEEDS=…`).
"""

from __future__ import annotations

import importlib
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from skyspan.contracts.context import Clock
from skyspan.contracts.engine import Driver, Performer
from skyspan.contracts.store import Lease, RunRecord, Store
from skyspan.drivers.local import Aim, LocalDriver, Pace
from skyspan.engine import StopAttempt
from skyspan.engine.state import RunState, StageState
from skyspan.model.event import AttemptFailed, CancelRequested, Event, RecordedEvent, RetryDue, RunEnded, StageEnded
from skyspan.model.lifecycle import RunStatus, StageStatus
from skyspan.testing.memory_store import MemoryStore
from skyspan.testing.simulator import Verdict, judge, scenario, simulate, trial
from skyspan.testing.simulator.driven import difference, drive, traces
from skyspan.testing.simulator.revived import MortalPerformer, revive

FOUND = Path(__file__).with_name("found_seeds.txt")
FEW = range(500)
"""Within these every planted mistake of the engine has to show."""

# The package's name `decide` is the function; the mutants need the module.
DECIDE: ModuleType = importlib.import_module("skyspan.engine.decide")
STATE: ModuleType = importlib.import_module("skyspan.engine.state")
RETRY: ModuleType = importlib.import_module("skyspan.engine.retry")


def asked_for(default: int) -> range:
    text = os.environ.get("SKYSPAN_SEEDS", "") or str(default)
    first, _, last = text.rpartition("-")
    return range(int(first or 0), int(last) + (1 if first else 0))


def parts(seeds: range, count: int) -> list[range]:
    """The seeds in `count` parts, so that several processes share them."""
    size = -(-len(seeds) // count)
    return [seeds[start : start + size] for start in range(0, len(seeds), max(size, 1))]


def span(seeds: range) -> str:
    return f"{seeds.start}-{seeds.stop - 1}"


def broken(verdicts: Iterable[Verdict], most: int = 5) -> list[str]:
    found = []
    for verdict in verdicts:
        if verdict.broken:
            found.append(str(verdict))
            if len(found) == most:
                break
    return found


@pytest.mark.parametrize("seeds", parts(asked_for(10_000), 10), ids=span)
def test_no_seed_breaks_a_rule(seeds: range) -> None:
    began = time.process_time()
    found = broken(map(trial, seeds))
    took = time.process_time() - began
    print(f"{len(seeds)} runs, {len(seeds) / took:.0f} per second of one processor")
    assert not found, "add these to found_seeds.txt once they are understood:\n" + "\n".join(found)


def test_a_processor_simulates_hundreds_of_runs_in_a_second() -> None:
    """The budget is 500 on a processor of one's own. A busy machine slows even processor time down: the best of many
    short rounds counts, and it gets half."""
    rates = []
    for first in range(0, 1000, 50):
        began = time.process_time()
        assert not broken(map(trial, range(first, first + 50)))
        rates.append(50 / (time.process_time() - began))
    print(f"simulated runs per second of processor: best {max(rates):.0f}, median {sorted(rates)[10]:.0f}")
    assert max(rates) > 250


def seeds_found() -> list[int]:
    lines = FOUND.read_text(encoding="utf-8").splitlines()
    return [int(match[0]) for line in lines if (match := re.match(r"\d+", line))]


def test_seeds_that_were_found_stay_mended() -> None:
    assert seeds_found()
    assert not broken(map(trial, seeds_found()))


def test_simulated_runs_meet_everything_that_can_happen() -> None:
    ends: Counter[RunStatus] = Counter()
    stages: Counter[StageStatus] = Counter()
    crashes = take_overs = refused_writes = refused_leases = dropped = deeds = 0
    for seed in FEW:
        run = simulate(scenario(seed))
        crashes, take_overs = crashes + run.crashes, take_overs + run.take_overs
        refused_writes, refused_leases = refused_writes + run.refused_writes, refused_leases + run.refused_leases
        dropped, deeds = dropped + run.dropped, deeds + len(run.deeds)
        last = run.recorded[-1].event
        assert isinstance(last, RunEnded)
        ends[last.status] += 1
        stages.update(item.event.status for item in run.recorded if isinstance(item.event, StageEnded))
    assert set(ends) == set(RunStatus) - {RunStatus.RUNNING, RunStatus.LOST}
    assert {status.value for status in stages} == {
        "succeeded", "unchanged", "failed", "skipped", "cancelled", "lost"
    }  # fmt: skip
    assert min(crashes, take_overs, refused_writes, refused_leases, dropped) > 50
    assert deeds > 1000


def test_the_same_seed_gives_the_same_run() -> None:
    for seed in (3, 1531):
        one, other = trial(seed), trial(seed)
        assert one == other
        assert one.run is not None


@pytest.mark.parametrize("seeds", parts(asked_for(1_000), 4), ids=span)
def test_the_local_driver_on_virtual_time_does_what_the_simulation_does(seeds: range) -> None:
    for seed in seeds:
        calm = scenario(seed, calm=True)
        driven = drive(calm, make_driver)
        assert not judge(driven), f"seed {seed}"
        unlike = difference(traces(simulate(calm).recorded), traces(driven.recorded))
        assert not unlike, f"seed {seed}: {unlike}"


def make_driver(store: Store, clock: Clock) -> LocalDriver:
    return LocalDriver(store, clock, pace=Pace(poll_s=60.0))


async def resume(
    driver: Driver, run: RunRecord, lease: Lease, recorded: Sequence[RecordedEvent], performer: Performer
) -> RunEnded:
    assert isinstance(driver, LocalDriver)
    asked = next((item.event for item in recorded if isinstance(item.event, CancelRequested)), None)
    aim = Aim.finish() if asked is None else Aim.cancel(asked.requested_by)
    return await driver.resume(run, lease, recorded, performer, aim)


def wrongs(seed: int) -> str:
    """What is wrong with a run whose drivers are struck down, and what they do when they awake as zombies."""
    run = revive(scenario(seed), make_driver, resume)
    wrong = judge(run) if run.recorded else ()
    return f"seed {seed}: {'; '.join(wrong[:3])}" if wrong else ""


@pytest.mark.parametrize("seeds", parts(asked_for(500), 2), ids=span)
def test_local_drivers_that_are_struck_down_bring_the_run_to_its_end(seeds: range) -> None:
    assert not [wrong for seed in seeds if (wrong := wrongs(seed))]


def test_a_store_that_does_not_fence_lets_zombies_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryStore, "_fence", lambda self, lease, address=None: self._memory.leases[lease.deployment])
    assert any(trial(seed).broken for seed in range(30))
    assert any(map(_breaks, range(30)))


def test_an_attempt_that_forgets_what_it_intended_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    original = MortalPerformer.__init__
    monkeypatch.setattr(
        MortalPerformer, "__init__", lambda self, doing, life, cut: original(self, doing, life, frozenset())
    )
    assert any(map(_breaks, range(60)))


def _breaks(seed: int) -> bool:
    try:
        return bool(wrongs(seed))
    except Exception:
        return True


# Mistakes planted in the engine: each has to be seen within FEW seeds.


def forget_to_skip(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(DECIDE._Draft, "_skip_after", lambda self, ended: None)


def skip_only_the_next(patch: pytest.MonkeyPatch) -> None:
    original = DECIDE._Draft._skip_after

    def shallow(self: Any, ended: StageEnded) -> None:
        if ended.status is not StageStatus.SKIPPED:
            place = self._state.place(ended.stage)
            if not STATE.releases(self._state.shape.outlines[place], ended):
                kept = self._state.shape
                self._state = replace(
                    self._state,
                    shape=replace(
                        kept,
                        dependents=tuple(
                            direct if index == place else () for index, direct in enumerate(kept.dependents)
                        ),
                    ),
                )
                original(self, ended)
                self._state = replace(self._state, shape=kept)

    patch.setattr(DECIDE._Draft, "_skip_after", shallow)


def start_one_too_many(patch: pytest.MonkeyPatch) -> None:
    original = STATE._begun
    patch.setattr(STATE, "_begun", lambda event: original(replace(event, concurrency=event.concurrency + 1)))


def start_one_too_few(patch: pytest.MonkeyPatch) -> None:
    original = STATE._begun
    patch.setattr(STATE, "_begun", lambda event: original(replace(event, concurrency=max(event.concurrency - 1, 1))))


def retry_never(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        DECIDE, "pause_before_next", lambda outline, attempt, error: 2.0 if attempt < outline.attempts else None
    )


def retry_for_ever(patch: pytest.MonkeyPatch) -> None:
    original = RETRY.pause_before_next
    patch.setattr(
        DECIDE,
        "pause_before_next",
        lambda outline, attempt, error: original(replace(outline, attempts=attempt + 1), attempt, error),
    )


def pause_too_short(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RETRY, "LONGEST_PAUSE_S", 50.0)


def go_on_when_cancelled(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RunState, "closing", property(lambda self: self.fail_fast and bool(self.failed)))


def go_on_after_the_first_failure(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RunState, "closing", property(lambda self: self.cancelled_by is not None))
    patch.setattr(DECIDE._Draft, "_give_up", lambda self, cause: None)


def cancel_only_what_runs(patch: pytest.MonkeyPatch) -> None:
    def stop_running(self: Any) -> None:
        for outline, stage in zip(self._state.shape.outlines, self._state.board, strict=True):
            if stage.phase is STATE.Phase.RUNNING:
                self._effects.append(StopAttempt(outline.name, stage.attempt))

    patch.setattr(DECIDE._Draft, "cancel", stop_running)


def ignore_needs(patch: pytest.MonkeyPatch) -> None:
    original = STATE._begun
    patch.setattr(
        STATE,
        "_begun",
        lambda event: replace(
            original(replace(event, stages=tuple(replace(stage, needs=()) for stage in event.stages))),
        ),
    )


def treat_best_effort_as_needed(patch: pytest.MonkeyPatch) -> None:
    original = STATE.releases

    def strict(outline: Any, ended: StageEnded) -> bool:
        return bool(original(replace(outline, best_effort=False), ended))

    patch.setattr(STATE, "releases", strict)
    patch.setattr(DECIDE, "releases", strict)


def forgive_every_failure(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(DECIDE, "releases", lambda outline, ended: True)
    patch.setattr(STATE, "releases", lambda outline, ended: True)


def call_it_a_success(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(DECIDE, "_result", lambda state: (RunStatus.SUCCEEDED, ""))


def believe_late_failures(patch: pytest.MonkeyPatch) -> None:
    original: Callable[[RunState, Event], bool] = DECIDE._timely

    def trusting(state: RunState, event: Event) -> bool:
        if isinstance(event, AttemptFailed) and event.stage in state.shape.index:
            return state.stage(event.stage).phase is STATE.Phase.RUNNING
        return original(state, event)

    patch.setattr(DECIDE, "_timely", trusting)


def believe_a_pause_is_over_too_early(patch: pytest.MonkeyPatch) -> None:
    original: Callable[[RunState, Event], bool] = DECIDE._timely

    def trusting(state: RunState, event: Event) -> bool:
        if isinstance(event, RetryDue) and event.stage in state.shape.index:
            return state.stage(event.stage).phase is STATE.Phase.PAUSED
        return original(state, event)

    patch.setattr(DECIDE, "_timely", trusting)


def believe_repeated_reports(patch: pytest.MonkeyPatch) -> None:
    original: Callable[[RunState, Event], bool] = DECIDE._timely

    def trusting(state: RunState, event: Event) -> bool:
        return (isinstance(event, StageEnded) and state.ended is None) or original(state, event)

    patch.setattr(DECIDE, "_timely", trusting)


def forget_a_ready_stage(patch: pytest.MonkeyPatch) -> None:
    original = STATE._queued
    patch.setattr(STATE, "_queued", lambda state, places: original(state, places[:-1] if len(places) > 1 else places))


def lose_the_count_of_running(patch: pytest.MonkeyPatch) -> None:
    original = STATE._ended
    patch.setattr(STATE, "_ended", lambda state, event: replace(original(state, event), running=0))


def forget_the_attempt(patch: pytest.MonkeyPatch) -> None:
    original = STATE._with

    def forgetful(state: RunState, stage: str, **changes: Any) -> RunState:
        if changes.get("phase") is STATE.Phase.PAUSED:
            changes["attempt"] = 0
        changed: RunState = original(state, stage, **changes)
        return changed

    patch.setattr(STATE, "_with", forgetful)


def forget_what_was_intended(patch: pytest.MonkeyPatch) -> None:
    """Only a crash shows it: the next engine takes an attempt that acted for one that only looked."""
    original = STATE._with

    def forgetful(state: RunState, stage: str, **changes: Any) -> RunState:
        changes.pop("intent", None)
        changed: RunState = original(state, stage, **changes)
        return changed

    patch.setattr(STATE, "_with", forgetful)


def forget_the_cancellation(patch: pytest.MonkeyPatch) -> None:
    """Only a crash shows it: `decide` knows, but a state that is restored from events does not."""
    original = STATE.restore
    patch.setattr(STATE, "restore", lambda events: replace(original(events), cancelled_by=None))


PLANTED = (
    forget_to_skip,
    skip_only_the_next,
    start_one_too_many,
    start_one_too_few,
    retry_never,
    retry_for_ever,
    pause_too_short,
    go_on_when_cancelled,
    go_on_after_the_first_failure,
    cancel_only_what_runs,
    ignore_needs,
    treat_best_effort_as_needed,
    forgive_every_failure,
    call_it_a_success,
    believe_late_failures,
    believe_a_pause_is_over_too_early,
    believe_repeated_reports,
    forget_a_ready_stage,
    lose_the_count_of_running,
    forget_the_attempt,
    forget_what_was_intended,
    forget_the_cancellation,
)


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: str(plant.__name__))
def test_a_planted_mistake_of_the_engine_is_seen(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    verdicts = (trial(seed, DECIDE.decide, STATE.restore) for seed in FEW)
    assert broken(verdicts, most=1), f"{plant.__name__} went unseen in {len(FEW)} seeds"


def test_every_place_of_a_stage_is_judged() -> None:
    """A new field of the engine's state has to be thought of here: is it covered by a planted mistake?"""
    assert set(StageState.__dataclass_fields__) == {"phase", "unmet", "attempt", "intent", "status", "error"}
