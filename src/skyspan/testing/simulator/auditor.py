"""Judges a run by its event list alone, knowing nothing of the engine or the simulator that produced it.

The rules are written here a second time on purpose, from the words of the design and not from the engine's code: an
auditor that asked the engine would agree with its mistakes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from skyspan.model.error import Retry
from skyspan.model.event import (
    AttemptFailed,
    CancelRequested,
    EffectIntended,
    RecordedEvent,
    RetryDue,
    RetryScheduled,
    RunEnded,
    RunStarted,
    StageEnded,
    StageOutline,
    StagePlanned,
    StageProgressed,
    StageStarted,
)
from skyspan.model.lifecycle import RunStatus, StageStatus, Verb
from skyspan.testing.simulator.rules import Rule, Violation

LONGEST_PAUSE_S = 60.0

Told: TypeAlias = StagePlanned | EffectIntended | StageProgressed

_BAD = (StageStatus.FAILED, StageStatus.LOST)
_UNTOUCHED = (StageStatus.UNCHANGED, StageStatus.SKIPPED)


def audit(
    recorded: Sequence[RecordedEvent],
    *,
    epochs: Sequence[int] | None = None,
    outputs: Mapping[str, Collection[str]] | None = None,
) -> tuple[Violation, ...]:
    """Every rule that a finished run breaks, in the order of its events.

    `epochs` holds the lease epoch under which each event was written; `outputs` the names of the outputs that are on
    record of each stage after the run. Without them their rules are not judged.
    """
    auditor = _Auditor()
    for place, item in enumerate(recorded, 1):
        auditor.take(place, item)
    auditor.close()
    found = auditor.found
    if epochs is not None:
        found += _epochs(recorded, epochs)
    if outputs is not None:
        found += _outputs(recorded, outputs)
    return tuple(found)


@dataclass(slots=True)
class _Stage:
    """What the events so far say of one stage."""

    outline: StageOutline
    dependents: list[_Stage] = field(default_factory=list)
    unmet: int = 0
    blocked: bool = False
    running: bool = False
    attempt: int = 0
    effect: str = ""
    failure: AttemptFailed | None = None
    """The attempt's failure, until it is clear what follows from it."""
    last_error: AttemptFailed | None = None
    scheduled: int = 0
    """The attempt that waits for its time."""
    due: bool = False
    ended: StageEnded | None = None

    @property
    def ready(self) -> bool:
        return not (self.ended or self.running or self.blocked or self.unmet) and (self.attempt == 0 or self.due)


class _Auditor:
    """Walks through the events once."""

    def __init__(self) -> None:
        self.found: list[Violation] = []
        self._seq = 0
        self._run_id = ""
        self._started: RunStarted | None = None
        self._ended: RunEnded | None = None
        self._stages: dict[str, _Stage] = {}
        self._running = 0
        self._ready = 0
        self._closed = ""
        self._cancelled = False
        self._touched = False
        """Whether any effect was intended."""
        self._pending: _Stage | None = None

    def take(self, place: int, item: RecordedEvent) -> None:
        """Judge the next event."""
        self._seq, event = place, item.event
        self._check(item.seq == place, Rule.NUMBERING, f"numbered {item.seq} at place {place}")
        self._run_id = self._run_id or item.run_id
        self._check(item.run_id == self._run_id, Rule.NUMBERING, f"belongs to run {item.run_id}")
        if isinstance(event, RunStarted):
            self._begin(event)
            return
        if self._started is None:
            self._broken(Rule.BEGINNING, f"{event.kind} before the run began")
            return
        self._check(self._ended is None, Rule.ENDING, f"{event.kind} after the run's end")
        if isinstance(event, CancelRequested):
            self._cancel()
        elif isinstance(event, RunEnded):
            self._end(event)
        elif (stage := self._stages.get(event.stage)) is None:
            self._broken(Rule.KNOWN, f"{event.kind} of {event.stage}")
        elif stage.ended is not None:
            self._broken(Rule.ONE_END, f"{event.kind} of {event.stage}, which has ended")
        else:
            self._about(stage, event)

    def close(self) -> None:
        """Judge what is missing at the end."""
        self._seq += 1
        self._check(self._started is not None, Rule.BEGINNING, "no beginning")
        self._check(self._ended is not None, Rule.ENDING, "no end")

    def _about(self, stage: _Stage, event: object) -> None:
        match event:
            case StageStarted():
                self._start(stage, event)
            case StagePlanned() | EffectIntended() | StageProgressed():
                self._tell(stage, event)
            case StageEnded():
                self._stage_ended(stage, event)
            case AttemptFailed():
                self._fail(stage, event)
            case RetryScheduled():
                self._schedule(stage, event)
            case RetryDue():
                self._due(stage, event)
            case _:
                self._broken(Rule.KNOWN, f"{event!r} is no kind of event")

    def _begin(self, event: RunStarted) -> None:
        self._check(self._started is None, Rule.BEGINNING, "a second beginning")
        if self._started is not None:
            return
        self._started = event
        stages = {outline.name: _Stage(outline) for outline in event.stages}
        if event.verb is not Verb.CHECK:
            for stage in stages.values():
                for need in {name for name in stage.outline.needs if name in stages}:
                    stages[need].dependents.append(stage)
                    stage.unmet += 1
        self._stages = stages
        self._ready = sum(stage.ready for stage in stages.values())

    def _start(self, stage: _Stage, event: StageStarted) -> None:
        name, number = event.stage, event.attempt
        self._settled(f"the start of {name}", except_for=None)
        self._check(not stage.running, Rule.ATTEMPTS, f"{name} starts while it runs")
        self._check(number == stage.attempt + 1, Rule.ATTEMPTS, f"{name} starts attempt {number} after {stage.attempt}")
        self._check(number <= max(stage.outline.attempts, 1), Rule.ATTEMPTS, f"{name} starts attempt {number}")
        if stage.attempt:
            self._check(stage.due, Rule.RETRIES, f"{name} starts again before its time")
        self._check(not (stage.unmet or stage.blocked), Rule.ORDER, f"{name} starts too early")
        self._check(not self._closed, Rule.CLOSED, f"{name} starts after {self._closed}")
        self._ready -= stage.ready
        self._running += not stage.running
        limit = max(self._started.concurrency, 1) if self._started else 1
        self._check(self._running <= limit, Rule.CONCURRENCY, f"{name} starts as one of {self._running}")
        stage.running, stage.attempt, stage.due, stage.scheduled = True, number, False, 0
        stage.effect, stage.failure = "", None

    def _tell(self, stage: _Stage, event: Told) -> None:
        self._incoming(event.kind)
        self._belongs(stage, event.kind, event.attempt)
        if isinstance(event, EffectIntended):
            said = f"{event.stage} intends {event.effect} after {stage.effect} in attempt {event.attempt}"
            self._check(not stage.effect, Rule.EFFECTS, said)
            stage.effect = event.effect or "nothing"
            self._touched = True

    def _fail(self, stage: _Stage, event: AttemptFailed) -> None:
        self._incoming(event.kind)
        self._belongs(stage, event.kind, event.attempt)
        stage.failure = stage.last_error = event
        self._pending = stage

    def _schedule(self, stage: _Stage, event: RetryScheduled) -> None:
        failure, name = stage.failure, event.stage
        self._settled(f"the retry of {name}", except_for=stage)
        self._pending = None
        if failure is None:
            self._broken(Rule.RETRIES, f"{name} is to be tried again without a failure")
            return
        wanted = None if self._closed else _pause(stage.outline, failure)
        self._check(wanted is not None, Rule.RETRIES, f"{name} is to be tried again after {failure.error}")
        if wanted is not None:
            said = f"{name} is to be tried again in {event.delay_s:g} s, not {wanted:g} s"
            self._check(event.delay_s == wanted, Rule.RETRIES, said)
        said = f"{name} is to make attempt {event.attempt} after {stage.attempt}"
        self._check(event.attempt == stage.attempt + 1, Rule.ATTEMPTS, said)
        stage.running, stage.failure, stage.scheduled = False, None, event.attempt
        self._running -= 1

    def _due(self, stage: _Stage, event: RetryDue) -> None:
        self._incoming(event.kind)
        said = f"attempt {event.attempt} of {event.stage} is due, but {stage.scheduled or 'none'} was to be"
        self._check(event.attempt == stage.scheduled and not stage.due, Rule.RETRIES, said)
        self._ready -= stage.ready
        stage.due = True
        self._ready += stage.ready

    def _stage_ended(self, stage: _Stage, event: StageEnded) -> None:
        name, status = event.stage, event.status
        self._settled(f"the end of {name}", except_for=stage)
        reported = stage.running and stage.failure is None
        if reported:
            self._incoming(event.kind)
        self._pending = None
        self._check(status.ended, Rule.ONE_END, f"{name} ends as {status.value}")
        self._check(event.attempt == stage.attempt, Rule.ATTEMPTS, f"{name} ends in attempt {event.attempt}")
        if stage.running:
            self._ended_running(stage, event)
        else:
            self._ended_idle(stage, event)
        if status is StageStatus.SKIPPED:
            self._skipped(stage, event)
        elif status is StageStatus.CANCELLED:
            self._check(self._cancelled, Rule.CANCELS, f"{name} is cancelled in a run that is not")
        self._ready -= stage.ready
        self._running -= stage.running
        stage.running, stage.ended = False, event
        if status in _BAD and not stage.outline.best_effort and self._started is not None and self._started.fail_fast:
            self._closed = self._closed or f"the failure of {name}"
        self._free(stage, event)

    def _ended_running(self, stage: _Stage, event: StageEnded) -> None:
        name, failure = event.stage, stage.failure
        if failure is not None:
            self._check(event.status is StageStatus.FAILED, Rule.RETRIES, f"{name} failed and is {event.status.value}")
            given_up = bool(self._closed) or _pause(stage.outline, failure) is None
            self._check(given_up, Rule.RETRIES, f"{name} is given up although it may be tried again")
            self._check(event.error == failure.error, Rule.RETRIES, f"{name} fails with another error than it reported")
        if event.status in _UNTOUCHED and event.status is not StageStatus.SKIPPED:
            self._check(
                not stage.effect, Rule.EFFECTS, f"{name} is {event.status.value} after it intended {stage.effect}"
            )
        if event.status is StageStatus.SKIPPED:
            self._check(not stage.effect, Rule.EFFECTS, f"{name} is skipped after it intended {stage.effect}")

    def _ended_idle(self, stage: _Stage, event: StageEnded) -> None:
        """It ends without running: never begun, or between two attempts."""
        allowed = (StageStatus.SKIPPED, StageStatus.CANCELLED) if not stage.attempt else (StageStatus.CANCELLED,)
        paused_failure = bool(stage.attempt and self._closed) and event.status is StageStatus.FAILED
        said = f"{event.stage} is {event.status.value} without running"
        self._check(event.status in allowed or paused_failure, Rule.RUNNING, said)
        if paused_failure and stage.last_error is not None:
            said = f"{event.stage} fails with another error than its last one"
            self._check(event.error == stage.last_error.error, Rule.RETRIES, said)

    def _skipped(self, stage: _Stage, event: StageEnded) -> None:
        if not event.cause:
            self._check(stage.running, Rule.SKIPS, f"{event.stage} is skipped without a cause")
            return
        cause = self._stages.get(event.cause)
        end = cause.ended if cause is not None else None
        bad = end is not None and not end.status.satisfies
        self._check(bad, Rule.SKIPS, f"{event.stage} is skipped because of {event.cause}, which did not end badly")
        for_cause = stage.running or stage.blocked or bool(self._closed)
        self._check(for_cause, Rule.SKIPS, f"{event.stage} is skipped although it may still run")

    def _free(self, stage: _Stage, event: StageEnded) -> None:
        lets_go = _lets_go(stage.outline, event)
        for dependent in stage.dependents:
            self._ready -= dependent.ready
            if lets_go:
                dependent.unmet -= 1
            else:
                dependent.blocked = True
            self._ready += dependent.ready

    def _cancel(self) -> None:
        self._incoming(CancelRequested.kind)
        self._cancelled = True
        self._closed = self._closed or "the run was cancelled"

    def _end(self, event: RunEnded) -> None:
        self._settled("the run's end", except_for=None)
        self._check(self._ended is None, Rule.ENDING, "a second end")
        self._ended = event
        lost = event.status is RunStatus.LOST
        if lost and not self._touched:
            # Another engine found it before it had touched anything: there is nothing to bring to an end.
            return
        unended = [name for name, stage in self._stages.items() if stage.ended is None]
        self._check(not unended, Rule.ONE_END, f"the run ends before {', '.join(unended)}")
        # Wound up by another engine: no new stage begins, as after a request to cancel.
        wanted = RunStatus.LOST if lost and self._cancelled else _result(self._stages.values())
        said = f"the run has {event.status.value}, its stages say {wanted.value}"
        self._check(event.status is wanted, Rule.RESULT, said)

    def _incoming(self, kind: str) -> None:
        """Something from outside: all that followed from what was before must have been decided by now."""
        self._settled(kind, except_for=None)
        limit = max(self._started.concurrency, 1) if self._started else 1
        if not self._closed and self._ready and self._running < limit:
            waiting = [name for name, stage in self._stages.items() if stage.ready]
            self._broken(Rule.IDLE, f"{kind} while {', '.join(waiting)} could have started")
        if self._cancelled:
            idle = [name for name, stage in self._stages.items() if stage.ended is None and not stage.running]
            self._check(not idle, Rule.CANCELS, f"{', '.join(idle)} had not begun when the run was cancelled")

    def _settled(self, happening: str, *, except_for: _Stage | None) -> None:
        if self._pending is not None and self._pending is not except_for:
            name = self._pending.outline.name
            self._broken(Rule.RETRIES, f"{happening} before it was decided what follows from the failure of {name}")
            self._pending = None

    def _belongs(self, stage: _Stage, kind: str, attempt: int) -> None:
        said = f"{kind} of attempt {attempt} of {stage.outline.name}"
        self._check(stage.running and attempt == stage.attempt, Rule.RUNNING, said)

    def _check(self, holds: bool, rule: Rule, seen: str) -> None:
        if not holds:
            self._broken(rule, seen)

    def _broken(self, rule: Rule, seen: str) -> None:
        self.found.append(Violation(rule, self._seq, seen))


def _lets_go(outline: StageOutline, ended: StageEnded) -> bool:
    """Whether dependents may go on after this end."""
    match ended.status:
        case StageStatus.CANCELLED:
            return False
        case StageStatus.SKIPPED:
            return outline.best_effort or not ended.cause
        case StageStatus.FAILED | StageStatus.LOST:
            return outline.best_effort
        case _:
            return True


def _pause(outline: StageOutline, failure: AttemptFailed) -> float | None:
    """Seconds until the next attempt by the stage's policy, or None when there is none."""
    retry = Retry(failure.error.get("retry", Retry.NEVER.value))
    if failure.attempt >= outline.attempts or (retry is Retry.NEVER and not outline.retry_any):
        return None
    if retry is Retry.NOW:
        return 0.0
    pause = outline.backoff_s
    for _ in range(failure.attempt - 1):
        pause = min(2 * pause, LONGEST_PAUSE_S)
    return min(pause, LONGEST_PAUSE_S)


def _result(stages: Collection[_Stage]) -> RunStatus:
    ends = [(stage.ended.status, stage.outline.best_effort) for stage in stages if stage.ended is not None]
    if any(status is StageStatus.CANCELLED for status, _ in ends):
        return RunStatus.CANCELLED
    if any(status in _BAD and not best_effort for status, best_effort in ends):
        return RunStatus.FAILED
    return RunStatus.DEGRADED if any(status in _BAD for status, _ in ends) else RunStatus.SUCCEEDED


def _epochs(recorded: Sequence[RecordedEvent], epochs: Sequence[int]) -> list[Violation]:
    if len(epochs) != len(recorded):
        return [Violation(Rule.EPOCHS, len(recorded), f"{len(epochs)} epochs of {len(recorded)} events")]
    return [
        Violation(Rule.EPOCHS, place + 1, f"written under epoch {epochs[place]} after {epochs[place - 1]}")
        for place in range(1, len(epochs))
        if epochs[place] < epochs[place - 1]
    ]


def _outputs(recorded: Sequence[RecordedEvent], outputs: Mapping[str, Collection[str]]) -> list[Violation]:
    found = []
    for item in recorded:
        event = item.event
        if isinstance(event, StageEnded) and event.status is StageStatus.SUCCEEDED:
            lost = set(event.outputs) - set(outputs.get(event.stage, ()))
            if lost:
                found.append(Violation(Rule.OUTPUTS, item.seq, f"{event.stage} gave {', '.join(sorted(lost))}"))
    return found
