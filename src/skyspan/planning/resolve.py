"""What settings, conditions and hosts come to, given what is known at that moment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from skyspan.contracts.host import Host
from skyspan.contracts.network import node_name
from skyspan.model.composition import Composition, StageDeclaration
from skyspan.model.error import SpecError
from skyspan.model.expression import ExpressionError, Loc, Reference, evaluate, merge_unknown, pluck
from skyspan.model.secret import Secret
from skyspan.model.value import OutputValue, Unknown, Value, concealed
from skyspan.model.value_type import conform, parse_type
from skyspan.planning.names import FQDN, HostName
from skyspan.planning.settings import host_fields, hosts_used, mentioned_hosts, settings_of, with_jumps
from skyspan.planning.source import dotted

__all__ = (
    "Absent",
    "Situation",
    "hosts_used",
    "resolve_condition",
    "resolve_hosts",
    "resolve_settings",
    "stage_hosts",
)

_MAX_HOPS = 16


@dataclass(frozen=True, slots=True)
class Absent:
    """A stage cannot have its settings, as it reads `stage`, which ended without outputs, and has no default for it."""

    stage: str
    reason: str


class _AbsentError(LookupError):
    """A reference to a stage that ended without outputs; `default()` catches it like every other missing one."""

    def __init__(self, absent: Absent) -> None:
        super().__init__(f"stage {absent.stage} has no outputs: {absent.reason}")
        self.absent = absent


def _nothing() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known at some moment of a run; the scope that expressions are evaluated in.

    `outputs` holds the outputs of stages as far as they are certain; those named in `pending` may get more (a stage
    that is planned but not applied), as may stages that are in neither map. `absent` says of stages that ended
    without outputs why. `secrets` are the workspace's. `home` is the user's, for `~` in paths. `names` says which stage
    gives a host its name in a private network.
    """

    composition: Composition
    inputs: Mapping[str, Value] = field(default_factory=_nothing)
    outputs: Mapping[str, Mapping[str, OutputValue]] = field(default_factory=_nothing)
    pending: frozenset[str] = frozenset()
    absent: Mapping[str, str] = field(default_factory=_nothing)
    secrets: Mapping[str, Secret] = field(default_factory=_nothing)
    folder: Path = Path()
    home: Path | None = None
    names: Mapping[str, HostName] = field(default_factory=_nothing)
    hops: int = 0

    def lookup(self, reference: Reference) -> Value | Unknown:
        """The reference's value now; see `model.expression.Scope`."""
        match reference.root, reference.path:
            case "inputs", (str(name), *path):
                if name not in self.inputs:
                    msg = f"input {name} has no value: give it with --input {name}=…"
                    raise LookupError(msg)
                return pluck(self.inputs[name], tuple(path), f"inputs.{name}")
            case "secrets", (str(name),):
                if name not in self.secrets:
                    msg = f"secret {name} is not set: set it with `skyspan secrets set {name}`"
                    raise LookupError(msg)
                return self.secrets[name]
            case "stages", (str(stage), "outputs", *path):
                return self._output(reference, stage, tuple(path))
            case "hosts", (str(host), str(name), *path):
                return self._host(host, name, tuple(path))
            case _:
                msg = f"{reference} refers to nothing"
                raise LookupError(msg)

    def _output(self, reference: Reference, stage: str, path: Loc) -> Value | Unknown:
        if stage in self.absent:
            raise _AbsentError(Absent(stage, self.absent[stage]))
        known = self.outputs.get(stage)
        complete = known is not None and stage not in self.pending
        if known is None or not (complete or (path and path[0] in known)):
            return Unknown(frozenset({str(reference)}))
        if not path:
            return {name: concealed(item.value) if item.sensitive else item.value for name, item in known.items()}
        name = str(path[0])
        if name not in known:
            msg = f"stage {stage} has no output {name!r}"
            raise LookupError(msg)
        value = concealed(known[name].value) if known[name].sensitive else known[name].value
        return pluck(value, path[1:], f"stages.{stage}.outputs.{name}")

    def _host_name(self, host: str) -> Value | Unknown:
        """The host's name in a private network: known as soon as the network's domain is, which may be long before the
        host has joined; its readers wait for that all the same."""
        named = self.names.get(host)
        if named is None:
            msg = f"no stage gives host {host} a name in a private network"
            raise LookupError(msg)
        if named.stage in self.absent:
            raise _AbsentError(Absent(named.stage, self.absent[named.stage]))
        domain = evaluate(named.domain, self._one_hop_on())
        if isinstance(domain, Unknown):
            return domain
        if not isinstance(domain, str):
            msg = f"the domain of stage {named.stage}, which names host {host}, is no text"
            raise LookupError(msg)
        return node_name(host, domain)

    def _host(self, host: str, name: str, path: Loc) -> Value | Unknown:
        if name == FQDN and not path:
            return self._host_name(host)
        declared = self.composition.hosts.get(host)
        fields = {"name": host, **host_fields(declared)} if declared is not None else {}
        if name not in fields:
            msg = f"there is no hosts.{host}.{name}"
            raise LookupError(msg)
        if self.hops > _MAX_HOPS:
            msg = f"hosts.{host}.{name} leads back to itself"
            raise LookupError(msg)
        raw = pluck(fields[name], path[:1], f"hosts.{host}.{name}") if path else fields[name]
        value = evaluate(raw, self._one_hop_on())
        return value if isinstance(value, Unknown) else pluck(value, path[1:], f"hosts.{host}.{name}")

    def _one_hop_on(self) -> Situation:
        return replace(self, hops=self.hops + 1)


def resolve_settings(stage: str, situation: Situation) -> dict[str, Value] | Unknown | Absent:
    """The stage's settings with every expression replaced.

    Unknown names every reference that has no value yet. Absent when a stage it reads ended without outputs and no
    `default()` stands in. Raises SpecError that lists every expression that cannot have a value, and where.
    """
    declared = situation.composition.stages[stage]
    raw = settings_of(declared, situation.composition.connections)
    return _settled(raw, ("stages", stage, "with"), situation)


def resolve_condition(stage: str, situation: Situation) -> bool | Unknown | Absent:
    """Whether the stage takes part. Raises SpecError when its `if` is neither true nor false."""
    raw = situation.composition.stages[stage].if_
    if isinstance(raw, bool):
        return raw
    value = _settled({"if": raw}, ("stages", stage), situation)
    if isinstance(value, Unknown | Absent):
        return value
    condition = value["if"]
    if not isinstance(condition, bool):
        raise SpecError(
            f"`if` of stage {stage} is neither true nor false",
            hint="compare it with something: ${{ inputs.mode == 'full' }}",
        )
    return condition


def stage_hosts(declared: StageDeclaration, settings: Mapping[str, Value], composition: Composition) -> frozenset[str]:
    """The hosts a stage needs: those its settings name as written, and as resolved; jumps included."""
    raw = settings_of(declared, composition.connections)
    return hosts_used(raw, composition.hosts) | _mentioned_in(settings, composition)


def _mentioned_in(settings: Mapping[str, Value], composition: Composition) -> frozenset[str]:
    """The hosts that resolved settings name. What looks like an expression there is data."""
    return with_jumps(mentioned_hosts(settings) & composition.hosts.keys(), composition.hosts)


def resolve_hosts(names: Iterable[str], situation: Situation) -> dict[str, Host] | Unknown | Absent:
    """The named hosts and those they are reached through, fully known.

    Unknown names every reference that has no value yet; Absent and SpecError as for settings.
    """
    hosts = situation.composition.hosts
    missing = sorted(set(names) - hosts.keys())
    if missing:
        raise SpecError(f"there is no host {missing[0]!r}", hint=f"hosts: {', '.join(sorted(hosts)) or 'none'}")
    resolved = {
        name: _settled(host_fields(hosts[name]), ("hosts", name), situation)
        for name in sorted(with_jumps(frozenset(names), hosts))
    }
    unknown = merge_unknown(resolved.values())
    if unknown is not None:
        return unknown
    for fields in resolved.values():
        if isinstance(fields, Absent):
            return fields
    return {name: _host(name, fields, situation) for name, fields in resolved.items() if isinstance(fields, dict)}


def _settled(raw: Mapping[str, Value], at: Loc, situation: Situation) -> dict[str, Value] | Unknown | Absent:
    """`raw` evaluated part by part, so that every problem is found and has a place."""
    problems: list[str] = []
    absent: list[Absent] = []

    def settle(value: Value, loc: Loc) -> Value | Unknown:
        if isinstance(value, Mapping):
            made = {key: settle(item, (*loc, key)) for key, item in value.items()}
            return merge_unknown(made.values()) or made
        if isinstance(value, list | tuple):
            items = [settle(item, (*loc, place)) for place, item in enumerate(value)]
            return merge_unknown(items) or items
        try:
            return evaluate(value, situation)
        except _AbsentError as error:
            absent.append(error.absent)
        except (LookupError, ExpressionError) as error:
            problems.append(f"{dotted(loc)}: {error}")
        return None

    settled = settle(raw, at)
    if problems:
        summary = (
            problems[0] if len(problems) == 1 else f"{dotted(at[:2])} has {len(problems)} settings without a value"
        )
        raise SpecError(summary, detail="" if len(problems) == 1 else "\n".join(problems))
    if absent:
        return absent[0]
    result: dict[str, Value] | Unknown = settled
    return result


def _host(name: str, fields: Mapping[str, Value], situation: Situation) -> Host:
    key = fields["key"]
    return Host(
        name=name,
        address=_text(name, fields, "address") or "",
        port=_port(name, fields["port"]),
        user=_text(name, fields, "user") or "root",
        key=key if isinstance(key, Secret) or key is None else Secret(str(key)),
        key_file=_path(_text(name, fields, "key_file"), situation),
        host_key=_text(name, fields, "host_key"),
        known_hosts=_path(_text(name, fields, "known_hosts"), situation),
        jump=_text(name, fields, "jump"),
        roles=tuple(str(role) for role in fields["roles"]),
        vars=fields["vars"],
    )


def _text(host: str, fields: Mapping[str, Value], name: str) -> str | None:
    """The field, which must be a text: a host's place is shown everywhere, so it cannot be a secret."""
    value = fields[name]
    if isinstance(value, Secret):
        raise SpecError(
            f"hosts.{host}.{name} is sensitive, but it has to be shown in logs and written to inventories",
            hint="take `sensitive` off the output it comes from",
        )
    if (value is None and name != "address") or (isinstance(value, str) and value):
        return value
    raise SpecError(f"hosts.{host}.{name} must be a text, not {'empty' if value in (None, '') else repr(value)}")


def _port(host: str, value: Value) -> int:
    number = int(value) if isinstance(value, str) and value.isdigit() else value
    try:
        port: int = conform(number, parse_type("port"))
    except ValueError as error:
        raise SpecError(f"hosts.{host}.port: {error}") from None
    if isinstance(port, Secret):
        raise SpecError(f"hosts.{host}.port is sensitive, but it has to be shown")
    return port


def _path(text: str | None, situation: Situation) -> str | None:
    if text is None:
        return None
    if text.startswith("~/") and situation.home is not None:
        return str(situation.home / text[2:])
    return str(situation.folder / text)
