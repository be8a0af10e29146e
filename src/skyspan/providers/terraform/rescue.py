"""Tells from a journal and a plan what an interrupted command left: what to import, to look for, to ask about. Pure."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from skyspan.model.error import Retry, StageError
from skyspan.providers.terraform.import_ids import import_id, is_made_again, is_relation
from skyspan.providers.terraform.journal import Creation, Journal
from skyspan.providers.terraform.lookup import Wanted, can_look_for, identifying, untagging

_MISSING = "Cannot import non-existent remote object"
_NONE: Mapping[str, str] = MappingProxyType({})


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
    declared = _declared(((shown.get("configuration") or {}).get("root_module")) or {}, "")
    found: dict[str, Creation] = {}
    for resource in shown.get("resource_changes") or ():
        change = resource["change"]
        created = "create" in change["actions"] or change.get("importing")
        if resource.get("mode") != "managed" or not created:
            continue
        values = change.get("after") or {}
        kept = identifying(resource["type"], values) if recognisable else values
        place = f"{_declared_in(resource['address'])}{resource['type']}.{resource['name']}"
        provider, needs = declared.get(place, ("", ()))
        found[resource["address"]] = Creation(resource["type"], provider, kept, needs)
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
    orphans, unheard = journal.orphans(known), suspects(journal, known)
    for address in sorted({*orphans, *journal.doubts(known), *unheard} - absent):
        made, identity = address in orphans, orphans.get(address, "")
        creation = _creation(journal.creations.get(address), planned.get(address), address)
        said = journal.settled.get(address)
        if said is not None:
            if said:
                imports[address] = said
            continue
        if is_made_again(creation.type, finished=made):
            again += [] if address in unheard else [address]
        elif address in known and address not in journal.destroyed:
            open_[address] = f"made anew as {identity}, while the state still holds {known[address]}"
        elif address not in planned:
            open_[address] = f"exists{' as ' + identity if identity else ', perhaps'}, but is no longer declared"
        elif made or is_relation(creation.type):
            id_ = import_id(creation.type, identity, planned[address].values)
            if id_ is None:
                waiting += [] if address in unheard else [address]
            else:
                imports[address] = id_
                tentative |= set() if made else {address}
        elif can_look_for(creation.type, creation.provider):
            wanted.append(Wanted(address, creation.type, creation.provider, creation.values))
        else:
            begun = "may have been in creation" if address in unheard else "was being created"
            open_[address] = f"{begun}; Skyspan cannot look for {creation.type}"
    return Triage(imports, frozenset(tentative), tuple(waiting), tuple(wanted), tuple(again), open_)


def suspects(journal: Journal, known: Mapping[str, str]) -> frozenset[str]:
    """What may have been begun unheard: all that it refers to is there."""
    there = {*known, *journal.made, *(address for address, said in journal.settled.items() if said)}
    declared = {_without_keys(address) for address in there}
    return frozenset(
        address
        for address in journal.suspects(known)
        if all(need in declared for need in journal.creations[address].needs)
    )


def missing_objects(said: str, tentative: frozenset[str]) -> frozenset[str]:
    """Which of the tentative imports failed because nothing is there, by what a failed plan said."""
    if _MISSING not in said:
        return frozenset()
    # Both tools quote the address, so the quotes of a key in it come escaped.
    return frozenset(address for address in tentative if json.dumps(address) in said)


def replaced_by_import(shown: Mapping[str, Any], settled: Mapping[str, str], *, as_planned: bool) -> dict[str, str]:
    """Imports of a plan (`show -json`) that would replace what they take in, unasked: address to the attributes at
    fault. `settled` is what a person has said already.

    An attribute that its provider does not read back (the `public_key` of an `aws_key_pair`) differs after each import.
    Any other difference is what a changed configuration wants, unless it is `as_planned` when the object was made.
    """
    found: dict[str, str] = {}
    for resource in shown.get("resource_changes") or ():
        change, address = resource["change"], resource["address"]
        if not change.get("importing") or "delete" not in change["actions"] or settled.get(address):
            continue
        if is_made_again(type_of(address), finished=False):
            continue  # Nothing exists but in the state, so there is nothing to decide.
        before = change.get("before") or {}
        names = sorted({str(path[0]) for path in change.get("replace_paths") or () if path})
        unread = [name for name in names if before.get(name) is None]
        if unread or as_planned:
            found[address] = ", ".join(unread or names)
    return found


def in_doubt(
    problems: Mapping[str, str],
    stage: str,
    deployment: str,
    *,
    ids: Mapping[str, str] = _NONE,
    strays: Collection[tuple[str, str]] = (),
) -> StageError:
    """The error that blocks a stage until every item (address and why) is settled, with the commands to do so.

    `ids` are the import ids that are known. `strays` (type and id) were made and belong to no resource: nothing would
    know of them any more once the apply goes on, and they would go on costing.
    """
    lines = [f"{address}: {why}" for address, why in sorted(problems.items())]
    lines += [f"{type_} {id_}: was made by it, and no resource claims it" for type_, id_ in sorted(strays)]
    told, hint = [], []
    if problems:
        told.append(f"{len(problems)} resource{'s' if len(problems) > 1 else ''} in doubt")
        hint.append("look whether each exists, settle it by one of its two commands, then run `skyspan up` again:")
        hint += [
            f"skyspan state settle {shlex.quote(address)} {deployment} --stage {stage} {said}"
            for address in sorted(problems)
            for said in (f"--import-id {shlex.quote(ids.get(address, 'ID'))}", "--absent")
        ]
    if strays:
        told.append(f"{len(strays)} object{'s' if len(strays) > 1 else ''} that no resource claims")
        hint.append("remove what nothing uses; what shall stay is left alone without the tag of that apply:")
        hint += [untagging(type_, id_) for type_, id_ in sorted(strays)]
    return StageError(
        f"an interrupted apply of {stage} left {' and '.join(told)}",
        detail="\n".join(lines),
        hint="\n".join(hint),
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
    values = {**identifying(recorded.type, planned.values), **recorded.values}
    return replace(recorded, provider=planned.provider or recorded.provider, values=values)


def _suffix(key: object) -> str:
    return "" if key is None else f"[{json.dumps(key)}]"


def _declared(module: Mapping[str, Any], prefix: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """The provider configuration of each declared resource, as the root module names it, and what it refers to."""
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for item in module.get("resources") or ():
        if item.get("mode") == "managed":
            names = {*_references(item), *(item.get("depends_on") or ())}
            needs = {".".join(_without_keys(name).split(".")[:2]) for name in names if _is_resource(name)}
            provider = str(item.get("provider_config_key", ""))
            found[f"{prefix}{item['type']}.{item['name']}"] = provider, tuple(sorted(prefix + need for need in needs))
    for name, call in (module.get("module_calls") or {}).items():
        found |= _declared(call.get("module") or {}, f"{prefix}module.{name}.")
    return found


def _references(expression: Any) -> Iterator[str]:
    """What an expression, a block or a whole resource refers to."""
    if isinstance(expression, list):
        for item in expression:
            yield from _references(item)
    elif isinstance(expression, Mapping):
        for name, item in expression.items():
            if name == "references" and isinstance(item, list):
                yield from item
            else:
                yield from _references(item)


def _is_resource(name: str) -> bool:
    first, _, rest = name.partition(".")
    return bool(rest) and first not in ("data", "var", "local", "module", "each", "count", "path", "terraform", "self")


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
