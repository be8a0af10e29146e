"""Finds what was under way when a command was killed. Pure.

It asks the provider itself, by data sources, for what bears the attempt's tag, and tells by the planned attributes
which is which.

The tag comes from the AWS provider's own environment (TF_AWS_DEFAULT_TAGS_*, since 5.62), so it is merged with the
configuration's default tags; the provider is told to ignore it as well, so it shows up in no plan. Providers older than
that set no tag, and then nothing is found by it.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from skyspan.providers.terraform.lookup_types import SOURCES, Tagged

TAG = "skyspan-attempt"
_IGNORED = "TF_AWS_IGNORE_TAGS_KEYS"
_QUESTION = "skyspan_lookup_"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One resource in doubt: its type, the provider configuration that made it, what the plan knew of it."""

    address: str
    type: str
    provider: str
    values: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Found:
    """An object that may be one of those wanted; `id` is what it is imported by."""

    id: str
    values: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Asked:
    """One question: the objects of a type that a provider configuration shows, narrowed down by `filters` (name and
    values each) and `pattern`. `alone`: it fails unless there is exactly one. `about` are the addresses it is for."""

    name: str
    type: str
    provider: str
    alone: bool
    filters: tuple[tuple[str, tuple[str, ...]], ...] = ()
    pattern: str = ""
    about: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """The address of the data source that answers it."""
        return f"data.{SOURCES[self.type].detail}.{self.name}"


@dataclass(frozen=True, slots=True)
class Answers:
    """What was found, by type and provider configuration, and the addresses of which several objects may be one."""

    found: Mapping[tuple[str, str], Sequence[Found]]
    several: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Settled:
    """Who is who: import ids by address, addresses with no object, and what cannot be told apart (by address, why)."""

    imports: Mapping[str, str]
    absent: tuple[str, ...]
    open: Mapping[str, str]

    @property
    def nothing(self) -> bool:
        """Whether it tells of none what it is."""
        return not self.imports and not self.absent


def ignoring_environment(given: Mapping[str, Any]) -> dict[str, str]:
    """The variables that keep our tag out of every plan, beside what the stage itself has the provider ignore."""
    ignored = given.get(_IGNORED)
    return {_IGNORED: f"{ignored},{TAG}" if isinstance(ignored, str) and ignored else TAG}


def seeing_environment(environment: Mapping[str, Any]) -> dict[str, str]:
    """What undoes `ignoring_environment` in `environment`, for a command that has to see our tag."""
    ignored = str(environment.get(_IGNORED, "")).split(",")
    return {_IGNORED: ",".join(key for key in ignored if key != TAG)}


def tagging_environment(attempt: str) -> dict[str, str]:
    """The variables that make the AWS provider tag what it creates."""
    return {f"TF_AWS_DEFAULT_TAGS_{TAG}": attempt}


def can_look_for(type_: str, provider: str) -> bool:
    """Whether an object of that type can be found: one of a provider configuration of the root module."""
    return type_ in SOURCES and bool(provider) and not provider.startswith("module.")


def identifying(type_: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Of a planned resource's attributes, those by which it can be found and told apart; unknown ones are left out."""
    source = SOURCES.get(type_)
    names = (*source.attributes, *source.hints) if source else ()
    return {name: values[name] for name in names if values.get(name) is not None}


def is_askable(wanted: Wanted) -> bool:
    """Whether enough is known of it to ask for it."""
    return all(wanted.values.get(name) is not None for name in SOURCES[wanted.type].needs)


def questions(wanted: Iterable[Wanted]) -> tuple[Asked, ...]:
    """What has to be asked to find all of them, each once. All have to be askable."""
    groups: dict[tuple[str, str, str], list[Wanted]] = {}
    for item in sorted(wanted, key=lambda item: item.address):
        # One that is asked for alone takes all that is known of it, so that it finds no other.
        own = "" if SOURCES[item.type].listing else _signature(item)
        groups.setdefault((item.type, item.provider, own), []).append(item)
    return tuple(_question(f"{_QUESTION}{number}", groups[key]) for number, key in enumerate(sorted(groups)))


def question_blocks(asked: Sequence[Asked], attempts: Sequence[str]) -> tuple[bytes, tuple[str, ...]]:
    """Configuration (JSON syntax) that asks them all, and the addresses to target so that nothing else is read."""
    data: dict[str, dict[str, Any]] = {}
    outputs, targets = {}, []
    for item in asked:
        source = SOURCES[item.type]
        own = {"provider": item.provider}
        arguments = _arguments(item, attempts)
        if source.listing:
            data.setdefault(source.listing, {})[item.name] = own | arguments
            listed = f"data.{source.listing}.{item.name}.{source.ids}"
            arguments = {"for_each": f"${{toset({listed})}}", source.key: "${each.value}"}
            targets.append(f"data.{source.listing}.{item.name}")
        data.setdefault(source.detail, {})[item.name] = own | arguments
        targets.append(item.place)
        outputs[item.name] = {"value": _answer(item, attempts)}
    return json.dumps({"data": data, "output": outputs}, indent=1).encode(), tuple(targets)


def answers(shown: Mapping[str, Any], asked: Sequence[Asked]) -> dict[tuple[str, str], tuple[Found, ...]]:
    """What a plan over the question blocks has found, by type and provider configuration."""
    outputs = (shown.get("planned_values") or {}).get("outputs") or {}
    found: dict[tuple[str, str], dict[str, Found]] = {}
    for item in asked:
        objects = found.setdefault((item.type, item.provider), {})
        for each in (outputs.get(item.name) or {}).get("value") or ():
            id_ = str(each["id"])
            objects[id_] = Found(id_, {name: value for name, value in each.items() if name != "id"})
    return {kind: tuple(objects.values()) for kind, objects in found.items()}


def refused(said: str, asked: Sequence[Asked]) -> dict[Asked, bool] | None:
    """Which questions of a failed plan found nothing (False) or several objects (True); None if it failed otherwise.

    The provider's words: "no matching EC2 VPN Gateway found", "multiple EC2 VPN Gateways matched; use additional
    constraints to reduce matches to a single EC2 VPN Gateway" (internal/tfresource).
    """
    by_place = {item.place: item for item in asked if item.alone}
    found: dict[Asked, bool] = {}
    for error in re.split(r"^(?=\S.*: error: )", said, flags=re.MULTILINE):
        if not error.strip():
            continue
        place = re.search(rf"\bdata\.\w+\.{_QUESTION}\d+\b", error)
        item = by_place.get(place[0]) if place else None
        nothing, several = "no matching" in error or "empty result" in error, "multiple " in error
        if item is None or not (nothing or several):
            return None
        found[item] = several
    return found or None


def settle(wanted: Sequence[Wanted], told: Answers, known: frozenset[str], *, last: bool = True) -> Settled:
    """Tell who is who. `known` are ids that belong to others already.

    Resources whose planned attributes are equal are interchangeable: which is which makes no difference. Unless it is
    the `last` time, though, an attribute may become known yet (a parent's id), so objects that differ wait.
    """
    imports: dict[str, str] = {}
    absent: list[str] = []
    open_: dict[str, str] = {}
    for kind in sorted({(item.type, item.provider) for item in wanted}):
        groups: dict[str, list[Wanted]] = {}
        for item in sorted(wanted, key=lambda item: item.address):
            if (item.type, item.provider) == kind:
                groups.setdefault(_signature(item), []).append(item)
        objects = [each for each in sorted(told.found.get(kind, ()), key=lambda each: each.id) if each.id not in known]
        claims, doubtful, unlike = _claims(groups, objects)
        for signature, items in groups.items():
            claimed, names = claims[signature], [item.address for item in items]
            may_be = [*doubtful.get(signature, ()), *claimed]
            if len(claimed) < len(items) and SOURCES[kind[0]].tagged is not Tagged.NONE:
                may_be += unlike
            unsure = len(may_be) > len(claimed) or len(claimed) > len(items) or bool(told.several & set(names))
            if unsure or (not last and len(items) > 1 and _differ(kind[0], claimed)):
                ids = ", ".join(sorted({each.id for each in may_be})) or "one of several objects like it"
                open_ |= dict.fromkeys(names, f"was being created; it may be {ids}")
                continue
            imports |= {name: each.id for name, each in zip(names, claimed, strict=False)}
            absent += names[len(claimed) :]
    return Settled(imports, tuple(absent), open_)


def bearing_tag(told: Answers) -> frozenset[tuple[str, str]]:
    """Type and id of every object found that is seen to bear an attempt's tag."""
    return frozenset(
        (type_, each.id)
        for (type_, _), objects in told.found.items()
        for each in objects
        if TAG in (each.values.get("tags_all") or {})
    )


def untagging(type_: str, id_: str) -> str:
    """The command of the cloud's own tool that takes the attempt's tag off an object."""
    if type_ == "aws_iam_role":
        return f"aws iam untag-role --role-name {shlex.quote(id_)} --tag-keys {TAG}"
    return f"aws ec2 delete-tags --resources {shlex.quote(id_)} --tags Key={TAG}"


def _claims(
    groups: Mapping[str, Sequence[Wanted]], objects: Sequence[Found]
) -> tuple[dict[str, list[Found]], dict[str, list[Found]], list[Found]]:
    """By group of like resources: the objects that can only be theirs, those that may be; and objects like none."""
    claims: dict[str, list[Found]] = {signature: [] for signature in groups}
    doubtful: dict[str, list[Found]] = {}
    unlike: list[Found] = []
    for candidate in objects:
        fitting = [signature for signature, items in groups.items() if _fits(items[0], candidate)]
        if len(fitting) == 1:
            claims[fitting[0]].append(candidate)
        for signature in fitting if len(fitting) > 1 else ():
            doubtful.setdefault(signature, []).append(candidate)
        if not fitting:
            unlike.append(candidate)
    return claims, doubtful, unlike


def _question(name: str, items: Sequence[Wanted]) -> Asked:
    first, source = items[0], SOURCES[items[0].type]
    filters: list[tuple[str, tuple[str, ...]]] = []
    for attribute, filter_ in source.filters.items():
        values = {_word(item.values[attribute]) for item in items if item.values.get(attribute) is not None}
        if values:
            filters.append((filter_, tuple(sorted(values))))
    tags = _plain(first.values.get("tags_all") or {}) if not source.listing else {}
    filters += [(f"tag:{key}", (str(value),)) for key, value in sorted(tags.items())]
    pattern = ""
    if source.tagged is Tagged.SEEN:
        pattern = f"^({'|'.join(sorted({_named(item) for item in items}))})$"
    about = tuple(item.address for item in items)
    return Asked(name, first.type, first.provider, not source.listing, tuple(filters), pattern, about)


def _named(item: Wanted) -> str:
    """What its name looks like, as a regular expression; without one of its own the provider takes `terraform-…`."""
    if item.values.get("name"):
        return re.escape(str(item.values["name"]))
    return re.escape(str(item.values.get("name_prefix") or "terraform-")) + ".*"


def _arguments(asked: Asked, attempts: Sequence[str]) -> dict[str, Any]:
    source = SOURCES[asked.type]
    if asked.pattern:
        return {**source.fixed, "name_regex": asked.pattern}
    filters = [{"name": name, "values": list(values)} for name, values in asked.filters]
    if source.tagged is Tagged.FILTER:
        filters.insert(0, {"name": f"tag:{TAG}", "values": list(attempts)})
    return {**source.fixed, "filter": [*filters, *source.fixed.get("filter", ())]}


def _answer(asked: Asked, attempts: Sequence[str]) -> str:
    source = SOURCES[asked.type]
    names = {name: other or name for name, other in source.attributes.items()}
    shown = ", ".join(f"{name} = x.{other}" for name, other in {"id": source.identity, **names}.items())
    conditions = [source.condition] if source.condition else []
    if source.tagged is Tagged.SEEN:
        conditions.append(f'contains({json.dumps(list(attempts))}, try(x.tags["{TAG}"], ""))')
    only = f" if {' && '.join(conditions)}" if conditions else ""
    each = f"[{asked.place}]" if asked.alone else asked.place
    return f"${{[for x in {each} : {{{shown}}}{only}]}}"


def _signature(item: Wanted) -> str:
    return json.dumps(identifying(item.type, item.values), sort_keys=True)


def _fits(wanted: Wanted, found: Found) -> bool:
    planned = identifying(wanted.type, wanted.values)
    # Of one that bears our tag, what its data source does not tell is no reason to doubt.
    lenient = SOURCES[wanted.type].tagged is not Tagged.NONE
    told = {name: value for name, value in found.values.items() if value is not None or not lenient}
    return all(_plain(value) == _plain(told[name]) for name, value in planned.items() if name in told)


def _differ(type_: str, objects: Sequence[Found]) -> bool:
    """Whether these objects differ in what tells two of that type apart."""
    told = [[_plain(each.values.get(name)) for name in SOURCES[type_].attributes] for each in objects]
    return any(each != told[0] for each in told[1:])


def _plain(value: Any) -> Any:
    """In a form that compares: tags without ours, wherever it is seen or not; sets in order; numbers as words."""
    if isinstance(value, Mapping):
        return {key: item for key, item in value.items() if key != TAG}
    if isinstance(value, list):
        return sorted(_word(item) for item in value)
    return _word(value)


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
