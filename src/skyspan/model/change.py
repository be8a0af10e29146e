"""What a provider sees of the real thing (Observation) and what a plan would do to it (Change)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from skyspan.model.value import OutputValue

NO_OUTPUTS: Mapping[str, OutputValue] = MappingProxyType({})


class Action(StrEnum):
    """What would happen to a stage or to one resource of it."""

    NONE = "none"
    CREATE = "create"
    UPDATE = "update"
    REPLACE = "replace"
    DESTROY = "destroy"
    DEFERRED = "deferred"

    @property
    def changes(self) -> bool:
        """Whether carrying this out would touch anything."""
        return self is not Action.NONE


@dataclass(frozen=True, slots=True)
class ResourceChange:
    """One resource of a stage: its address in the tool's own words and what would happen to it."""

    address: str
    action: Action
    note: str = ""

    def record(self) -> dict[str, str]:
        """As published in `plan --json`: address and action, and a note where there is one."""
        return {"address": self.address, "action": self.action.value} | ({"note": self.note} if self.note else {})


@dataclass(frozen=True, slots=True)
class ConsoleLink:
    """A place where a person can look at the real thing."""

    title: str
    url: str


@dataclass(frozen=True, slots=True)
class Observation:
    """What is really there.

    `exists` false means absent. `healthy` false says why in `reason`. `drifted` means that the real thing no longer
    is what was applied; `drift` lists how. `fingerprint` changes whenever the real thing does, as far as the tool
    can tell. `outputs` are complete when `exists`.
    """

    exists: bool
    healthy: bool = True
    drifted: bool = False
    fingerprint: str = ""
    reason: str = ""
    outputs: Mapping[str, OutputValue] = field(default_factory=lambda: NO_OUTPUTS)
    drift: tuple[ResourceChange, ...] = ()
    links: tuple[ConsoleLink, ...] = ()

    @classmethod
    def absent(cls, reason: str = "") -> Observation:
        """Nothing is there."""
        return cls(exists=False, healthy=False, reason=reason)


@dataclass(frozen=True, slots=True)
class Change:
    """What applying would do to one stage.

    `based_on` is the fingerprint of the observation it was planned on. `outputs` holds only those outputs that will
    certainly have that value afterwards; what is not certain is left out, never invented. `meaning` is equal for two
    changes that would do the same thing to the real world, whatever the wording. `unknown` names the references a
    deferred change waits for. `payload` is the provider's own (a plan file's name, say) and is not stored.
    """

    action: Action
    reason: str = ""
    resources: tuple[ResourceChange, ...] = ()
    based_on: str = ""
    meaning: str = ""
    unknown: tuple[str, ...] = ()
    outputs: Mapping[str, OutputValue] = field(default_factory=lambda: NO_OUTPUTS)
    payload: Any = field(default=None, compare=False, repr=False)

    @classmethod
    def none(cls, seen: Observation, reason: str = "") -> Change:
        """Nothing to do: the outputs stay what they are."""
        return cls(Action.NONE, reason, based_on=seen.fingerprint, outputs=seen.outputs)

    @classmethod
    def deferred(cls, unknown: frozenset[str], reason: str = "") -> Change:
        """It cannot be planned before the references in `unknown` have a value."""
        names = tuple(sorted(unknown))
        return cls(Action.DEFERRED, reason or f"waits for {', '.join(names)}", unknown=names)

    def record(self) -> dict[str, Any]:
        """As stored in events and published in `plan --json` (without outputs: those may be sensitive)."""
        return {
            "change": self.action.value,
            "reason": self.reason,
            "unknown": list(self.unknown),
            "resources": [resource.record() for resource in self.resources],
            "based_on": self.based_on,
            "meaning": self.meaning,
        }

    @classmethod
    def restore(cls, record: Mapping[str, Any]) -> Change:
        """The change that `record` came from."""
        return cls(
            action=Action(record["change"]),
            reason=record.get("reason", ""),
            resources=tuple(
                ResourceChange(item["address"], Action(item["action"]), item.get("note", ""))
                for item in record.get("resources", ())
            ),
            based_on=record.get("based_on", ""),
            meaning=record.get("meaning", ""),
            unknown=tuple(record.get("unknown", ())),
        )
