"""Finds what was under way when a command was killed. Pure.

It asks the provider itself, by data sources, for what bears the attempt's tag, and tells by the planned attributes
which is which.

The tag comes from the AWS provider's own environment (TF_AWS_DEFAULT_TAGS_*, since 5.62), so it is merged with the
configuration's default tags; the provider is told to ignore it as well, so it shows up in no plan. Providers older than
that set no tag, and then nothing is found by it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

TAG = "skyspan-attempt"
_OUTPUT = "skyspan_lookup_"


@dataclass(frozen=True, slots=True)
class Source:
    """How objects of one type are found. `listing` gives their ids as `ids`, `detail` one by `key`.

    `attributes` are those that tell two of them apart, by the resource's name, with the data source's where it differs.
    Without a listing, `detail` takes the filter itself and finds one or fails.
    """

    detail: str
    attributes: Mapping[str, str]
    listing: str = ""
    ids: str = "ids"
    key: str = "id"


_SOURCES: Mapping[str, Source] = MappingProxyType(
    {
        "aws_vpc": Source("aws_vpc", {"cidr_block": "", "instance_tenancy": "", "tags_all": "tags"}, "aws_vpcs"),
        "aws_subnet": Source(
            "aws_subnet",
            {"cidr_block": "", "vpc_id": "", "availability_zone": "", "tags_all": "tags"},
            "aws_subnets",
        ),
        "aws_security_group": Source(
            "aws_security_group",
            {"name": "", "description": "", "vpc_id": "", "tags_all": "tags"},
            "aws_security_groups",
        ),
        "aws_instance": Source(
            "aws_instance",
            {"ami": "", "instance_type": "", "subnet_id": "", "private_ip": "", "tags_all": "tags"},
            "aws_instances",
            key="instance_id",
        ),
        "aws_eip": Source("aws_eip", {"domain": "", "tags_all": "tags"}, "aws_eips", ids="allocation_ids"),
        "aws_route_table": Source(
            "aws_route_table", {"vpc_id": "", "tags_all": "tags"}, "aws_route_tables", key="route_table_id"
        ),
        "aws_internet_gateway": Source("aws_internet_gateway", {"tags_all": "tags"}),
    }
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """One resource in doubt: its type, the provider configuration that made it, what the plan knew of it."""

    address: str
    type: str
    provider: str
    values: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Found:
    """An object that bears the attempt's tag."""

    id: str
    values: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Asked:
    """One question: all objects of a type that a provider configuration shows. `alone`: it fails where none is."""

    name: str
    type: str
    provider: str
    alone: bool


@dataclass(frozen=True, slots=True)
class Settled:
    """Who is who: import ids by address, addresses with no object, and what cannot be told apart, in words."""

    imports: Mapping[str, str]
    absent: tuple[str, ...]
    open: tuple[str, ...]
    unclear: tuple[str, ...]


def ignoring_environment(given: Mapping[str, Any]) -> dict[str, str]:
    """The variables that keep our tag out of every plan, beside what the stage itself has the provider ignore."""
    ignored = given.get("TF_AWS_IGNORE_TAGS_KEYS")
    return {"TF_AWS_IGNORE_TAGS_KEYS": f"{ignored},{TAG}" if isinstance(ignored, str) and ignored else TAG}


def tagging_environment(attempt: str) -> dict[str, str]:
    """The variables that make the AWS provider tag what it creates."""
    return {f"TF_AWS_DEFAULT_TAGS_{TAG}": attempt}


def can_look_for(type_: str, provider: str) -> bool:
    """Whether an object of that type can be found: one of a provider configuration of the root module."""
    return type_ in _SOURCES and bool(provider) and not provider.startswith("module.")


def identifying(type_: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Of a planned resource's attributes, those by which it can be told apart; unknown ones are left out."""
    source = _SOURCES.get(type_)
    names = source.attributes if source else ()
    return {name: values[name] for name in names if values.get(name) is not None}


def questions(wanted: Iterable[Wanted]) -> tuple[Asked, ...]:
    """What has to be asked to find all of them, each once."""
    kinds = sorted({(item.type, item.provider) for item in wanted})
    return tuple(
        Asked(f"{_OUTPUT}{number}", type_, provider, not _SOURCES[type_].listing)
        for number, (type_, provider) in enumerate(kinds)
    )


def question_blocks(asked: Sequence[Asked], attempts: Sequence[str]) -> tuple[bytes, tuple[str, ...]]:
    """Configuration (JSON syntax) that asks them all, and the addresses to target so that nothing else is read."""
    data: dict[str, dict[str, Any]] = {}
    outputs, targets = {}, []
    for item in asked:
        source = _SOURCES[item.type]
        tagged: dict[str, Any] = {"filter": [{"name": f"tag:{TAG}", "values": list(attempts)}]}
        if item.type == "aws_instance":
            tagged["instance_state_names"] = ["pending", "running", "stopping", "stopped"]
        own = {"provider": item.provider}
        place = f"data.{source.detail}.{item.name}"
        if source.listing:
            data.setdefault(source.listing, {})[item.name] = own | tagged
            listed = f"data.{source.listing}.{item.name}.{source.ids}"
            detail: dict[str, Any] = {"for_each": f"${{toset({listed})}}", source.key: "${each.value}"}
            targets.append(f"data.{source.listing}.{item.name}")
        else:
            detail = tagged
        data.setdefault(source.detail, {})[item.name] = own | detail
        targets.append(place)
        names = {name: other or name for name, other in source.attributes.items()}
        shown = ", ".join(f"{name} = x.{other}" for name, other in {"id": "id", **names}.items())
        each = place if source.listing else f"[{place}]"
        outputs[item.name] = {"value": f"${{[for x in {each} : {{{shown}}}]}}"}
    return json.dumps({"data": data, "output": outputs}, indent=1).encode(), tuple(targets)


def answers(shown: Mapping[str, Any], asked: Sequence[Asked]) -> dict[tuple[str, str], tuple[Found, ...]]:
    """What a plan over the question blocks has found, by type and provider configuration."""
    outputs = (shown.get("planned_values") or {}).get("outputs") or {}
    return {
        (item.type, item.provider): tuple(
            Found(str(each["id"]), {name: value for name, value in each.items() if name != "id"})
            for each in (outputs.get(item.name) or {}).get("value") or ()
        )
        for item in asked
    }


def is_nothing_found(said: str) -> bool:
    """Whether a question that fails where nothing is failed for that reason."""
    return "no matching" in said or "empty result" in said


def settle(
    wanted: Sequence[Wanted], found: Mapping[tuple[str, str], Sequence[Found]], known: frozenset[str]
) -> Settled:
    """Tell who is who. `known` are ids that belong to others already.

    Resources whose planned attributes are equal are interchangeable: which is which makes no difference.
    """
    imports: dict[str, str] = {}
    absent: list[str] = []
    open_: list[str] = []
    unclear: list[str] = []
    for kind in sorted({(item.type, item.provider) for item in wanted}):
        mine = [item for item in wanted if (item.type, item.provider) == kind]
        groups: dict[str, list[Wanted]] = {}
        for item in sorted(mine, key=lambda item: item.address):
            groups.setdefault(json.dumps(identifying(item.type, item.values), sort_keys=True), []).append(item)
        claims: dict[str, list[Found]] = {signature: [] for signature in groups}
        doubtful: set[str] = set()
        for candidate in sorted(found.get(kind, ()), key=lambda item: item.id):
            if candidate.id in known:
                continue
            fitting = [signature for signature, items in groups.items() if _fits(items[0], candidate)]
            if len(fitting) == 1:
                claims[fitting[0]].append(candidate)
                continue
            doubtful |= set(fitting)
            may_be = ", ".join(item.address for signature in fitting for item in groups[signature])
            unclear.append(f"{kind[0]} {candidate.id} may be {may_be or 'none of these: nothing like it was planned'}")
        for signature, items in groups.items():
            claimed = claims[signature]
            if signature in doubtful or len(claimed) > len(items):
                unclear += [f"{kind[0]} {each.id} may be {items[0].address}" for each in claimed]
                open_ += [item.address for item in items]
                continue
            imports |= {item.address: each.id for item, each in zip(items, claimed, strict=False)}
            absent += [item.address for item in items[len(claimed) :]]
    return Settled(imports, tuple(absent), tuple(open_), tuple(unclear))


def _fits(wanted: Wanted, found: Found) -> bool:
    planned = identifying(wanted.type, wanted.values)
    told = {name: value for name, value in found.values.items() if value is not None}
    return all(_plain(value) == _plain(told[name]) for name, value in planned.items() if name in told)


def _plain(value: Any) -> Any:
    """Tags compare without ours, wherever it is seen or not."""
    return {key: item for key, item in value.items() if key != TAG} if isinstance(value, Mapping) else value
