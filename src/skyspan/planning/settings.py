"""What a stage's settings say before they have values: laid over a connection, and which hosts they name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from skyspan.model.composition import HostDeclaration, StageDeclaration
from skyspan.model.expression import Loc, has_expression, references
from skyspan.model.value import Value

CONNECTION = "connection"
TEMPLATE = "template"
NAMING = (TEMPLATE, CONNECTION)
"""The settings that name a connection whose settings a stage starts from; both mean the same, no provider has them."""

ORIGIN = "origin"
"""Marks an entry of `connections` that is a copy of the workspace's template; people never write it."""

_HOST_KEYS = frozenset({"host", "hosts", "from", "through"})
HERE = "here"
"""What `from: here` means: this machine, and no host."""


def is_template(entry: Mapping[str, Value]) -> bool:
    """Whether an entry of `connections` is written `{uses, with, description}`, not as the settings themselves."""
    return "uses" in entry or "with" in entry


def connection_named(own: Mapping[str, Value]) -> str | None:
    """The connection that a stage's `with:` names; None where it names none that can be known now."""
    for key in NAMING:
        name = own.get(key)
        if isinstance(name, str) and not has_expression(name):
            return name
    return None


def settings_of(stage: StageDeclaration, connections: Mapping[str, Mapping[str, Value]]) -> dict[str, Value]:
    """The stage's raw settings: its own `with:` laid over those of the connection it names."""
    return laid_over(stage.with_, connections)


def laid_over(own: Mapping[str, Value], connections: Mapping[str, Mapping[str, Value]]) -> dict[str, Value]:
    """`own` over the settings of the connection it names: mappings merge, at any depth; all else replaces."""
    if TEMPLATE not in own and CONNECTION not in own:
        return dict(own)
    kept = {key: value for key, value in own.items() if key not in NAMING or not isinstance(value, str)}
    return _merged(_settings(connections.get(connection_named(own) or "", {})), kept)


def _settings(entry: Mapping[str, Value]) -> Mapping[str, Value]:
    settings = entry.get("with") if is_template(entry) else entry
    return settings if isinstance(settings, Mapping) else {}


def _merged(below: Mapping[str, Value], above: Mapping[str, Value]) -> dict[str, Value]:
    merged = {**below, **above}
    for key in below.keys() & above.keys():
        if isinstance(below[key], Mapping) and isinstance(above[key], Mapping):
            merged[key] = _merged(below[key], above[key])
    return merged


def settings_place(
    stage: str, declared: StageDeclaration, connections: Mapping[str, Mapping[str, Value]], loc: Loc
) -> Loc:
    """Where the setting at `loc` of `settings_of` is written: in the stage, or in its connection."""
    return place_in(("stages", stage, "with"), declared.with_, connections, loc)


def place_in(at: Loc, own: Mapping[str, Value], connections: Mapping[str, Mapping[str, Value]], loc: Loc) -> Loc:
    """Where the setting at `loc` of `laid_over` is written: below `at`, where `own` is, or in the connection."""
    named = connection_named(own)
    entry = connections.get(named, {}) if named is not None else {}
    mine: Value = own
    theirs: Value = _settings(entry)
    for step in loc:
        if not (isinstance(mine, Mapping) and isinstance(theirs, Mapping)):
            break
        if step in mine and step in theirs:
            mine, theirs = mine[step], theirs[step]
        elif step in theirs:
            return ("connections", str(named), *(("with",) if is_template(entry) else ()), *loc)
        else:
            break
    return (*at, *loc)


def named_hosts(settings: Mapping[str, Value]) -> Iterator[tuple[Loc, str]]:
    """Every host that raw settings name where one must stand: `host`, `hosts`, `from`, `through`, `between[].host`."""
    for key in ("host", "hosts", "from", "through"):
        yield from _names(settings.get(key), (key,))
    between = settings.get("between")
    if isinstance(between, list | tuple):
        for place, end in enumerate(between):
            if isinstance(end, Mapping):
                yield from _names(end.get("host"), ("between", place, "host"))


def _names(value: Value, loc: Loc) -> Iterator[tuple[Loc, str]]:
    if isinstance(value, str):
        if value != HERE and not has_expression(value):
            yield loc, value
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from _names(item, (*loc, place))


def hosts_used(settings: Mapping[str, Value], hosts: Mapping[str, HostDeclaration]) -> frozenset[str]:
    """The declared hosts that a stage with these settings (raw or resolved) may reach, those jumped through included.

    Counts names under `host`, `hosts`, `from` and `through` at any depth, and expressions that read `hosts.…`.
    """
    found = mentioned_hosts(settings) & hosts.keys()
    found |= {str(read.path[0]) for read in references(settings) if read.root == "hosts" and read.path} & set(hosts)
    return with_jumps(found, hosts)


def mentioned_hosts(settings: Mapping[str, Value]) -> frozenset[str]:
    """Every text under `host`, `hosts`, `from` or `through` at any depth of raw settings: hosts, as far as declared."""
    return frozenset(_mentioned(settings))


def with_jumps(names: set[str] | frozenset[str], hosts: Mapping[str, HostDeclaration]) -> frozenset[str]:
    """`names` and every host on the way to them."""
    found: set[str] = set()
    front = [name for name in names if name in hosts]
    while front:
        name = front.pop()
        if name not in found:
            found.add(name)
            jump = hosts[name].jump
            if jump is not None and jump in hosts:
                front.append(jump)
    return frozenset(found)


def _mentioned(value: Value) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key in _HOST_KEYS:
                yield from (name for _, name in _names(item, ()))
            yield from _mentioned(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _mentioned(item)


def host_fields(host: HostDeclaration) -> dict[str, Value]:
    """A host's fields as written, those that expressions may read or stand in, without what was left out."""
    return {
        "address": host.address,
        "port": host.port,
        "user": host.user,
        "key": host.key,
        "key_file": host.key_file,
        "host_key": host.host_key,
        "known_hosts": host.known_hosts,
        "jump": host.jump,
        "roles": list(host.roles),
        "vars": host.vars,
    }
