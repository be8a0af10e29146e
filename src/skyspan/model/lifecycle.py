"""Statuses, and the only table of legal transitions between them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class Verb(StrEnum):
    """What a run does to a deployment."""

    PLAN = "plan"
    CHECK = "check"
    UP = "up"
    START = "start"
    STOP = "stop"
    DESTROY = "destroy"
    REPAIR = "repair"

    @property
    def writes(self) -> bool:
        """Whether a run of this verb may change the real world."""
        return self not in (Verb.PLAN, Verb.CHECK)

    @property
    def reverse(self) -> bool:
        """Whether dependents go before what they depend on."""
        return self in (Verb.STOP, Verb.DESTROY)


class StageStatus(StrEnum):
    """Status of a stage within a run (pinned by the command line)."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"
    LOST = "lost"
    STOPPED = "stopped"
    DESTROYED = "destroyed"

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to the stage in this run."""
        return self not in (StageStatus.PENDING, StageStatus.RUNNING)

    @property
    def satisfies(self) -> bool:
        """Whether a dependent may go on."""
        return self in (StageStatus.SUCCEEDED, StageStatus.UNCHANGED, StageStatus.STOPPED, StageStatus.DESTROYED)


class RunStatus(StrEnum):
    """How a run stands."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    DEGRADED = "degraded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"


class DeploymentStatus(StrEnum):
    """How a deployment stands."""

    PENDING = "pending"
    PLANNING = "planning"
    DEPLOYING = "deploying"
    DEPLOYED = "deployed"
    DEGRADED = "degraded"
    FAILED = "failed"
    STOPPING = "stopping"
    STOPPED = "stopped"
    DESTROYING = "destroying"
    DESTROYED = "destroyed"

    @property
    def busy(self) -> bool:
        """Whether it stands so only while a run goes on."""
        return self not in _SETTLED


_D = DeploymentStatus

_SETTLED = (_D.PENDING, _D.DEPLOYED, _D.DEGRADED, _D.FAILED, _D.STOPPED, _D.DESTROYED)

TRANSITIONS: Mapping[DeploymentStatus, frozenset[DeploymentStatus]] = MappingProxyType(
    {
        _D.PENDING: frozenset({_D.PLANNING, _D.DEPLOYING, _D.DESTROYING}),
        _D.PLANNING: frozenset(_SETTLED),
        _D.DEPLOYING: frozenset({_D.DEPLOYED, _D.DEGRADED, _D.FAILED}),
        _D.DEPLOYED: frozenset({_D.PLANNING, _D.DEPLOYING, _D.STOPPING, _D.DESTROYING, _D.DEGRADED}),
        _D.DEGRADED: frozenset({_D.PLANNING, _D.DEPLOYING, _D.STOPPING, _D.DESTROYING, _D.DEPLOYED}),
        _D.FAILED: frozenset({_D.PLANNING, _D.DEPLOYING, _D.STOPPING, _D.DESTROYING}),
        _D.STOPPING: frozenset({_D.STOPPED, _D.DEGRADED, _D.FAILED}),
        _D.STOPPED: frozenset({_D.PLANNING, _D.DEPLOYING, _D.STOPPING, _D.DESTROYING}),
        _D.DESTROYING: frozenset({_D.DESTROYED, _D.DEGRADED, _D.FAILED}),
        _D.DESTROYED: frozenset({_D.PLANNING, _D.DEPLOYING, _D.DESTROYING}),
    }
)
"""Which status may follow which. A run that died leaves a busy status; the next run of any verb may follow it."""

_BUSY = MappingProxyType(
    {
        Verb.UP: _D.DEPLOYING,
        Verb.START: _D.DEPLOYING,
        Verb.STOP: _D.STOPPING,
        Verb.DESTROY: _D.DESTROYING,
        Verb.PLAN: _D.PLANNING,
    }
)

_DONE = MappingProxyType(
    {Verb.UP: _D.DEPLOYED, Verb.START: _D.DEPLOYED, Verb.STOP: _D.STOPPED, Verb.DESTROY: _D.DESTROYED}
)


def while_running(verb: Verb, before: DeploymentStatus) -> DeploymentStatus:
    """The deployment's status while a run of `verb` goes on."""
    return _BUSY.get(verb, before)


def after_run(verb: Verb, before: DeploymentStatus, result: RunStatus) -> DeploymentStatus:
    """The deployment's status after a run of `verb` ended with `result`; reading verbs and repairs give `before`
    back."""
    if not verb.writes or verb is Verb.REPAIR:
        return before
    if result is RunStatus.SUCCEEDED:
        return _DONE[verb]
    return _D.DEGRADED if result is RunStatus.DEGRADED else _D.FAILED
