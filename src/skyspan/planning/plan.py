"""The plan: what a run would do to every stage, as published, as saved, and whether an apply still agrees with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from skyspan.model.change import Action, Change, ResourceChange
from skyspan.model.error import UsageError

SAVED_FORMAT = 1


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """One stage of a plan."""

    name: str
    uses: str
    change: Change

    def to_json(self) -> dict[str, Any]:
        """As published by `plan --json`."""
        return {
            "name": self.name,
            "uses": self.uses,
            "change": self.change.action.value,
            "reason": self.change.reason,
            "unknown": list(self.change.unknown),
            "resources": [resource.record() for resource in self.change.resources],
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """What would happen to a deployment. The digests tell which composition and inputs it was made from."""

    deployment: str
    stages: tuple[PlannedStage, ...]
    inputs_digest: str = ""
    composition_digest: str = ""

    @property
    def has_changes(self) -> bool:
        """Whether carrying it out would, or may, touch anything."""
        return any(stage.change.action.changes for stage in self.stages)

    def summary(self) -> dict[str, int]:
        """How many stages there are of each change, in a fixed order, zeros included."""
        counts = {action.value: 0 for action in Action}
        for stage in self.stages:
            counts[stage.change.action.value] += 1
        return counts

    def change_of(self, stage: str) -> Change | None:
        """The planned change of the named stage; None when the plan does not know it."""
        return next((planned.change for planned in self.stages if planned.name == stage), None)

    def to_json(self) -> dict[str, Any]:
        """As pinned: `{deployment, stages: [...], summary: {create, ...}}`."""
        return {
            "deployment": self.deployment,
            "stages": [stage.to_json() for stage in self.stages],
            "summary": self.summary(),
        }


@dataclass(frozen=True, slots=True)
class SavedPlan:
    """A plan in a file, to be reviewed and then applied by `up --plan`. Holds references and digests, no value."""

    plan: Plan
    verb: str = "up"
    created_at: float = 0.0
    only: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """What a newer version saved besides; kept when it is written again."""

    def to_json(self) -> dict[str, Any]:
        """The file's content."""
        return {
            **self.extra,
            "skyspan_plan": SAVED_FORMAT,
            "deployment": self.plan.deployment,
            "verb": self.verb,
            "created_at": self.created_at,
            "only": list(self.only),
            "inputs_digest": self.plan.inputs_digest,
            "composition_digest": self.plan.composition_digest,
            "stages": [{"name": stage.name, "uses": stage.uses, **stage.change.record()} for stage in self.plan.stages],
        }

    @classmethod
    def from_json(cls, data: Any) -> SavedPlan:
        """The plan that was saved; raises UsageError for what is none or of a newer format."""
        if not isinstance(data, Mapping) or "skyspan_plan" not in data:
            raise UsageError("this file holds no saved plan", hint="make one with `skyspan plan --out FILE`")
        if data["skyspan_plan"] != SAVED_FORMAT:
            raise UsageError(
                f"the saved plan has format {data['skyspan_plan']!r}, this version reads {SAVED_FORMAT}",
                hint="plan again with this version",
            )
        try:
            return cls._restore(data)
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"the saved plan is damaged: {error!r}", hint="plan again") from error

    @classmethod
    def _restore(cls, data: Mapping[str, Any]) -> SavedPlan:
        stages = tuple(
            PlannedStage(str(item["name"]), str(item["uses"]), Change.restore(item)) for item in data["stages"]
        )
        digests = str(data.get("inputs_digest", "")), str(data.get("composition_digest", ""))
        known = {"skyspan_plan", "deployment", "verb", "created_at", "only", "stages"}
        known |= {"inputs_digest", "composition_digest"}
        return cls(
            plan=Plan(str(data["deployment"]), stages, *digests),
            verb=str(data.get("verb", "up")),
            created_at=float(data.get("created_at", 0.0)),
            only=tuple(str(name) for name in data.get("only", ())),
            extra={key: value for key, value in data.items() if key not in known},
        )


_GENTLE = (Action.NONE, Action.CREATE, Action.UPDATE)


def agrees(approved: Change, actual: Change) -> str | None:
    """Why doing `actual` would go beyond the `approved` change; None when it does not.

    Doing nothing is always fine, and so is the same by meaning. What was deferred may turn out to create or update,
    as that was its announced unknown, but never to replace or destroy, in no resource of it.
    """
    if actual.action is Action.NONE:
        return None
    if approved.action is Action.DEFERRED:
        return _beyond_deferred(actual)
    if actual.action is not approved.action:
        return f"the plan says {approved.action}, now it would {actual.action}"
    if approved.meaning or actual.meaning:
        return None if approved.meaning == actual.meaning else _difference(approved, actual)
    return None if _done(approved) == _done(actual) else _difference(approved, actual)


def _beyond_deferred(actual: Change) -> str | None:
    if actual.action is Action.DEFERRED:
        return None
    if actual.action not in _GENTLE:
        return f"the plan deferred it, now it would {actual.action}"
    harsh = [item for item in actual.resources if item.action not in (*_GENTLE, Action.DEFERRED)]
    if harsh:
        return f"the plan deferred it, now it would {_listed(harsh)}"
    return None


def _done(change: Change) -> frozenset[tuple[str, Action]]:
    return frozenset((item.address, item.action) for item in change.resources if item.action.changes)


def _difference(approved: Change, actual: Change) -> str:
    before, after = _done(approved), _done(actual)
    fresh = [item for item in actual.resources if (item.address, item.action) in after - before]
    gone = [item for item in approved.resources if (item.address, item.action) in before - after]
    said = [f"it would also {_listed(fresh)}"] if fresh else []
    said += [f"it would no longer {_listed(gone)}"] if gone else []
    if not said:
        said = [f"it would {actual.action} with other values than the plan"]
    return ", and ".join(said)


def _listed(resources: list[ResourceChange]) -> str:
    named = [f"{item.action} {item.address}" for item in resources[:5]]
    more = f" and {len(resources) - 5} more" if len(resources) > 5 else ""
    return ", ".join(named) + more
