"""Tells from a journal and a plan what an interrupted command left: what to import, to look for, to ask about. Pure."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from skyspan.model.error import Retry, StageError
from skyspan.providers.terraform.import_ids import import_id, is_made_again, is_relation
from skyspan.providers.terraform.journal import Creation, Journal
from skyspan.providers.terraform.lookup import Wanted, can_look_for, identifying

_MISSING = "Cannot import non-existent remote object"


@dataclass(frozen=True, slots=True)
class Triage:
    """Everything that the journal tells and the state lacks, sorted.

    `imports`: address to import id. `tentative`: relations that are imported if they are there. `waiting`: their import
    id takes attributes that a further plan will know. `wanted`: to be looked for. `again`: nothing is left of them.
    `open`: only a person can tell, address to why.
    """

    imports: Mapping[str, str]
    tentative: frozenset[str] = frozenset()
    waiting: tuple[str, ...] = ()
    wanted: tuple[Wanted, ...] = ()
    again: tuple[str, ...] = ()
    open: Mapping[str, str] = field(default_factory=dict)


def creations_of(shown: Mapping[str, Any], *, recognisable: bool = True) -> dict[str, Creation]:
    """What a plan (`show -json`) would create, by address; with `recognisable` only the attributes that tell apart."""
    providers = _providers(((shown.get("configuration") or {}).get("root_module")) or {}, "")
    found: dict[str, Creation] = {}
    for resource in shown.get("resource_changes") or ():
        change = resource["change"]
        created = "create" in change["actions"] or change.get("importing")
        if resource.get("mode") != "managed" or not created:
            continue
        values = change.get("after") or {}
        kept = identifying(resource["type"], values) if recognisable else values
        place = f"{_declared_in(resource['address'])}{resource['type']}.{resource['name']}"
        found[resource["address"]] = Creation(resource["type"], providers.get(place, ""), kept)
    return found


def triage(
    journal: Journal, known: Mapping[str, str], planned: Mapping[str, Creation], absent: frozenset[str]
) -> Triage:
    """Sort what the journal tells and the state lacks.

    `known` is what the state holds (address to id), `planned` what a plan would create now with all it knows, `absent`
    what turned out not to exist.
    """
    imports: dict[str, str] = {}
    waiting: list[str] = []
    wanted: list[Wanted] = []
    again: list[str] = []
    open_: dict[str, str] = {}
    tentative: set[str] = set()
    orphans, doubts = journal.orphans(known), journal.doubts(known)
    for address in sorted({*orphans, *doubts} - absent):
        made, identity = address in orphans, orphans.get(address, "")
        creation = _creation(journal.creations.get(address), planned.get(address), address)
        said = journal.settled.get(address)
        if said is not None:
            if said:
                imports[address] = said
            continue
        if is_made_again(creation.type, finished=made):
            again.append(address)
        elif address in known and address not in journal.destroyed:
            open_[address] = f"made anew as {identity}, while the state still holds {known[address]}"
        elif address not in planned:
            open_[address] = f"exists{' as ' + identity if identity else ', perhaps'}, but is no longer declared"
        elif made or is_relation(creation.type):
            id_ = import_id(creation.type, identity, planned[address].values)
            if id_ is None:
                waiting.append(address)
            else:
                imports[address] = id_
                tentative |= set() if made else {address}
        elif can_look_for(creation.type, creation.provider):
            wanted.append(Wanted(address, creation.type, creation.provider, creation.values))
        else:
            open_[address] = f"was being created; Skyspan cannot look for {creation.type}"
    return Triage(imports, frozenset(tentative), tuple(waiting), tuple(wanted), tuple(again), open_)


def missing_objects(said: str, tentative: frozenset[str]) -> frozenset[str]:
    """Which of the tentative imports failed because nothing is there, by what a failed plan said."""
    if _MISSING not in said:
        return frozenset()
    return frozenset(address for address in tentative if f'"{address}"' in said)


def in_doubt(problems: Mapping[str, str], unclear: Sequence[str], stage: str, deployment: str) -> StageError:
    """The error that blocks a stage until every item is settled, with the commands that settle them."""
    lines = [*(f"{address}: {why}" for address, why in sorted(problems.items())), *unclear]
    commands = [
        f"skyspan state settle {shlex.quote(address)} {deployment} --stage {stage} --import-id ID   (or --absent)"
        for address in sorted(problems)
    ]
    return StageError(
        f"an interrupted apply of {stage} left {len(lines)} resource{'s' if len(lines) > 1 else ''} in doubt",
        detail="\n".join(lines),
        hint="look whether each exists, then say so:\n" + "\n".join(commands),
        retry=Retry.NEVER,
    )


def without_destroyed(state: bytes, addresses: Sequence[tuple[str, str]]) -> bytes:
    """The state without objects known to be destroyed (address and id each), its serial one higher."""
    document = json.loads(state)
    gone = set(addresses)
    for resource in document.get("resources") or ():
        module = f"{resource['module']}." if resource.get("module") else ""
        base = f"{module}{resource['type']}.{resource['name']}"
        resource["instances"] = [
            item
            for item in resource.get("instances") or ()
            if (base + _suffix(item.get("index_key")), str((item.get("attributes") or {}).get("id", ""))) not in gone
        ]
    document["resources"] = [item for item in document.get("resources") or () if item["instances"]]
    document["serial"] = int(document["serial"]) + 1
    return json.dumps(document, indent=2).encode()


def _creation(recorded: Creation | None, planned: Creation | None, address: str) -> Creation:
    """What was planned when it was begun, completed by what a plan knows now."""
    if recorded is None:
        return planned or Creation(type_of(address))
    if planned is None:
        return recorded
    now = identifying(recorded.type, planned.values)
    return Creation(recorded.type, planned.provider or recorded.provider, {**now, **recorded.values})


def _suffix(key: object) -> str:
    return "" if key is None else f"[{json.dumps(key)}]"


def _providers(module: Mapping[str, Any], prefix: str) -> dict[str, str]:
    """The provider configuration of each declared resource, as the root module names it."""
    found = {
        f"{prefix}{item['type']}.{item['name']}": str(item.get("provider_config_key", ""))
        for item in module.get("resources") or ()
        if item.get("mode") == "managed"
    }
    for name, call in (module.get("module_calls") or {}).items():
        found |= _providers(call.get("module") or {}, f"{prefix}module.{name}.")
    return found


def _declared_in(address: str) -> str:
    """The modules in an address without their keys, as declared: `module.a["x"].b.c` gives `module.a.`."""
    plain = _without_keys(address).split(".")
    names = [plain[index + 1] for index in range(0, len(plain) - 2, 2) if plain[index] == "module"]
    return "".join(f"module.{name}." for name in names)


def _without_keys(address: str) -> str:
    return re.sub(r'\[(?:"(?:[^"\\]|\\.)*"|\d+)\]', "", address)


def type_of(address: str) -> str:
    """The resource type in an address."""
    return _without_keys(address).split(".")[-2]
