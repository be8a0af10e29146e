"""Plans as results: made from what a planning run found, saved to files, read back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from skyspan.app.prepare import Prepared
from skyspan.app.runs import Result
from skyspan.model.change import Action, Change
from skyspan.model.error import NotFoundError, PlanMismatchError, SkyspanError, StageError, UsageError
from skyspan.model.event import Event, RunStarted, StageEnded, StagePlanned
from skyspan.model.lifecycle import RunStatus
from skyspan.planning.plan import Plan, PlannedStage, SavedPlan


def plan_of(result: Result, prepared: Prepared, deployment: str) -> Plan:
    """The plan that a planning run found. Raises SkyspanError when a stage could not be planned."""
    if result.ended.status is not RunStatus.SUCCEEDED and result.ended.status is not RunStatus.DEGRADED:
        raise _failure(result)
    return Plan(deployment, tuple(_planned(result.events)), prepared.inputs_digest, prepared.digest)


def _planned(events: Iterable[Event]) -> Iterable[PlannedStage]:
    changes: dict[str, Change] = {}
    uses: dict[str, str] = {}
    for event in events:
        match event:
            case RunStarted(stages=stages):
                uses = {stage.name: stage.uses for stage in stages}
            case StagePlanned(stage=stage, change=change):
                changes[stage] = Change.restore(change)
            case StageEnded(stage=stage, reason=reason) if stage not in changes:
                changes[stage] = Change(Action.NONE, reason)
            case _:
                pass
    return (PlannedStage(name, kind, changes.get(name, Change(Action.NONE))) for name, kind in uses.items())


def _failure(result: Result) -> SkyspanError:
    errors = [
        (event.stage, StageError.restore(event.error))
        for event in result.events
        if isinstance(event, StageEnded) and event.error
    ]
    if len(errors) == 1:
        stage, error = errors[0]
        return StageError(f"stage {stage} cannot be planned: {error.summary}", detail=error.detail, hint=error.hint)
    detail = "\n".join(f"{stage}: {error}" for stage, error in errors)
    return SkyspanError(f"{len(errors)} stages cannot be planned", detail=detail or result.ended.reason)


def save_plan(path: Path, saved: SavedPlan) -> None:
    """Write a plan file. Raises UsageError when that cannot be."""
    try:
        path.write_text(json.dumps(saved.to_json(), indent=2) + "\n")
    except OSError as error:
        raise UsageError(f"cannot write the plan to {path}: {error.strerror}") from error


def read_plan(path: Path) -> SavedPlan:
    """Read a plan file. Raises NotFoundError or UsageError."""
    try:
        return SavedPlan.from_json(json.loads(path.read_text()))
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no plan file {path}", hint="make one with `skyspan plan --out FILE`") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as a plan: {error}") from error


def refuse_stale(saved: SavedPlan, prepared: Prepared, deployment: str) -> None:
    """Raise PlanMismatchError when the plan was made for something else than what is about to be applied."""
    plan = saved.plan
    if plan.deployment != deployment:
        raise PlanMismatchError(f"the plan is for deployment {plan.deployment}, not {deployment}")
    if plan.composition_digest != prepared.digest:
        raise PlanMismatchError(
            "the composition, or a connection template that it names, was edited since the plan was made",
            hint="plan again with --out, review, and apply that",
        )
    if plan.inputs_digest != prepared.inputs_digest:
        raise PlanMismatchError(
            "the inputs are not those that the plan was made with", hint="give the same --input and --inputs"
        )


def approved_changes(plan: Plan) -> dict[str, Change]:
    """The changes of a plan, by stage."""
    return {stage.name: stage.change for stage in plan.stages}
