"""What a restored run still owes the world: the effects that its dead engine had decided and may not have performed."""

from __future__ import annotations

from skyspan.engine import BeginAttempt, Effect, Phase, RunState, StopAttempt, Wake
from skyspan.engine.retry import pause_before_next


def owed(state: RunState) -> tuple[Effect, ...]:
    """The effects to perform (again) after `state` was restored from events alone.

    A BeginAttempt stands for every attempt on record as running, whether or not it really began: who performs it has
    to look for what is left of it first. Pauses begin anew.
    """
    effects: list[Effect] = []
    if not state.begun or state.ended is not None:
        return ()
    for outline, stage in zip(state.shape.outlines, state.board, strict=True):
        if stage.phase is Phase.RUNNING:
            effects.append(BeginAttempt(outline.name, stage.attempt, outline.timeout_s))
            if state.cancelled_by is not None:
                effects.append(StopAttempt(outline.name, stage.attempt))
        elif stage.phase is Phase.PAUSED:
            pause = pause_before_next(outline, stage.attempt, stage.error or {}) or 0.0
            effects.append(Wake(outline.name, stage.attempt + 1, pause))
    return tuple(effects)
