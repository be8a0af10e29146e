"""Makes a Change of what the tool planned: which resources, which outputs are certain, and what it means. Pure.

The format of `show -json`: https://opentofu.org/docs/internals/json-format/ (1.x; unknown keys are ignored).
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from skyspan.model.change import Action, ResourceChange
from skyspan.model.value import OutputValue, digest
from skyspan.providers.terraform.parse import IMPORTED, Moved

_UNCHANGING = frozenset({("no-op",), ("read",), ("open",)})

_VERBS = (
    (Action.CREATE, "to create"),
    (Action.UPDATE, "to update"),
    (Action.REPLACE, "to replace"),
    (Action.DESTROY, "to destroy"),
)


def resource_changes(planned: Sequence[Moved]) -> tuple[ResourceChange, ...]:
    """The planned changes of resources, by address."""
    changes = (ResourceChange(moved.address, moved.action, moved.note) for moved in planned)
    return tuple(sorted(changes, key=lambda change: change.address))


def stage_action(resources: Sequence[ResourceChange], *, exists: bool) -> Action:
    """What a plan with changes does to the stage as a whole: its creation, a replacement in it, or an update."""
    if not exists:
        return Action.CREATE
    if any(resource.action is Action.REPLACE for resource in resources):
        return Action.REPLACE
    return Action.UPDATE


def reason_of(resources: Sequence[ResourceChange], outputs: Sequence[str]) -> str:
    """`2 to create, 1 to update`, or which outputs change when no resource does."""
    count = Counter(resource.action for resource in resources if resource.note != IMPORTED)
    said = [f"{count[action]} {verb}" for action, verb in _VERBS if count[action]]
    imported = sum(resource.note == IMPORTED for resource in resources)
    said += [f"{imported} to import"] if imported else []
    if said:
        return ", ".join(said)
    return f"outputs change: {', '.join(outputs)}" if outputs else "only the state's bookkeeping changes"


def drift_of(
    planned: Sequence[Moved], drifted: Sequence[Moved], outputs: Sequence[str]
) -> tuple[tuple[ResourceChange, ...], str]:
    """What the real thing needs to be as configured again, and why in words; nothing for a plan without changes.

    Drift that needs no change is none. Providers report a lot of it right after an apply, when a resource made later
    shows up in one made earlier: the routes of an AWS route table, the association of an Elastic IP.
    """
    outside = {moved.address: moved.action for moved in drifted}
    gone = {address for address, action in outside.items() if action is Action.DESTROY}
    notes = {address: "gone" if address in gone else "changed outside" for address in outside}
    changes = [ResourceChange(moved.address, moved.action, notes.get(moved.address, "")) for moved in planned]
    if not changes:
        changes = [ResourceChange(f"output.{name}", Action.UPDATE) for name in outputs]
    touched = sorted({change.address for change in changes} & set(outside))
    if touched:
        return _by_address(changes), "changed outside: " + ", ".join(f"{name} ({notes[name]})" for name in touched)
    return _by_address(changes), "it is not what the configuration says" if changes else ""


def certain_outputs(shown: Mapping[str, Any]) -> dict[str, OutputValue]:
    """Outputs that will have exactly this value: those that are wholly known in the plan."""
    values = (shown.get("planned_values") or {}).get("outputs") or {}
    changes = shown.get("output_changes") or {}
    return {
        name: OutputValue(output["value"], bool(output.get("sensitive", False)))
        for name, output in values.items()
        if "value" in output and not _holds(changes.get(name, {}).get("after_unknown", False))
    }


def meaning_of(shown: Mapping[str, Any]) -> str:
    """Equal for two plans that would do the same, whatever else they hold (order, time, state, refreshed values).

    Of sensitive values only whether they change takes part: the meaning is stored in clear, and the digest of a weak
    password could be searched for.
    """
    resources = sorted(_resource_meanings(shown), key=json.dumps)
    outputs = {
        name: [change["actions"], _after(change)]
        for name, change in (shown.get("output_changes") or {}).items()
        if tuple(change["actions"]) not in _UNCHANGING
    }
    return digest([resources, outputs])


def _resource_meanings(shown: Mapping[str, Any]) -> Iterator[list[Any]]:
    for resource in shown.get("resource_changes") or ():
        change = resource["change"]
        moved = resource.get("previous_address", resource["address"]) != resource["address"]
        unchanging = tuple(change["actions"]) in _UNCHANGING and not change.get("importing") and not moved
        if resource.get("mode") != "managed" or unchanging:
            continue
        importing = (change.get("importing") or {}).get("id", "")
        yield [
            resource["address"],
            resource.get("deposed", ""),
            resource.get("previous_address", ""),
            importing,
            change["actions"],
            _after(change),
        ]


def _after(change: Mapping[str, Any]) -> Any:
    known = _cover(change.get("after"), change.get("before"), change.get("after_sensitive", False))
    return [known, _flags(change.get("after_unknown", False))]


def _cover(value: Any, before: Any, sensitive: Any) -> Any:
    """`value` without what the mask `sensitive` covers."""
    if sensitive is True:
        return {"sensitive": "same" if value == before else "changed"}
    if isinstance(value, Mapping) and isinstance(sensitive, Mapping):
        old = before if isinstance(before, Mapping) else {}
        return {name: _cover(item, old.get(name), sensitive.get(name, False)) for name, item in value.items()}
    if isinstance(value, list) and isinstance(sensitive, list):
        old_items = before if isinstance(before, list) else []
        rows = itertools.zip_longest(value, old_items[: len(value)], sensitive[: len(value)])
        return [_cover(item, old_item, mask or False) for item, old_item, mask in rows]
    return value


def _flags(unknown: Any) -> Any:
    """The mask without the parts that say nothing: `{}` and `false` mean the same."""
    if isinstance(unknown, Mapping):
        return {name: _flags(item) for name, item in unknown.items() if _holds(item)}
    if isinstance(unknown, list):
        return [_flags(item) for item in unknown]
    return bool(unknown)


def _holds(mask: Any) -> bool:
    if isinstance(mask, Mapping):
        return any(_holds(item) for item in mask.values())
    return any(_holds(item) for item in mask) if isinstance(mask, list) else bool(mask)


def _by_address(changes: Sequence[ResourceChange]) -> tuple[ResourceChange, ...]:
    return tuple(sorted(changes, key=lambda change: change.address))
