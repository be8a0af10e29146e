"""The engine: decides what a run does next, performs nothing."""

from skyspan.engine.decide import decide
from skyspan.engine.effect import BeginAttempt, Effect, Finish, Step, StopAttempt, Wake
from skyspan.engine.state import NEW, Phase, RunState, evolve, restore

__all__ = [
    "NEW",
    "BeginAttempt",
    "Effect",
    "Finish",
    "Phase",
    "RunState",
    "Step",
    "StopAttempt",
    "Wake",
    "decide",
    "evolve",
    "restore",
]
