"""What a stage's settings say before they have values: merged with a connection, and which hosts they name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from skyspan.model.composition import HostDeclaration, StageDeclaration
from skyspan.model.expression import Loc, has_expression, references
from skyspan.model.value import Value

CONNECTION = "connection"
"""The setting that names an entry of `connections:` whose settings a stage starts from."""

_HOST_KEYS = frozenset({"host", "hosts", "from"})
_HERE = "here"


def settings_of(stage: StageDeclaration, connections: Mapping[str, Mapping[str, Value]]) -> dict[str, Value]:
    """The stage's raw settings: its own `with:`, and below them those of the connection it names."""
    named = stage.with_.get(CONNECTION)
    if not isinstance(named, str) or not connections:
        return dict(stage.with_)
    own = {key: value for key, value in stage.with_.items() if key != CONNECTION}
    return {**connections.get(named, {}), **own}


def settings_place(stage: str, declared: StageDeclaration, connections: Mapping[str, Value], loc: Loc) -> Loc:
    """Where the setting at `loc` of `settings_of` is written: in the stage, or in its connection."""
    named = declared.with_.get(CONNECTION)
    if loc and loc[0] not in declared.with_ and isinstance(named, str) and loc[0] in connections.get(named, {}):
        return ("connections", named, *loc)
    return ("stages", stage, "with", *loc)


def named_hosts(settings: Mapping[str, Value]) -> Iterator[tuple[Loc, str]]:
    """Every host that raw settings name where a host must stand: `host`, `hosts`, `from`, `between[].host`."""
    for key in ("host", "hosts", "from"):
        yield from _names(settings.get(key), (key,))
    between = settings.get("between")
    if isinstance(between, list | tuple):
        for place, end in enumerate(between):
            if isinstance(end, Mapping):
                yield from _names(end.get("host"), ("between", place, "host"))


def _names(value: Value, loc: Loc) -> Iterator[tuple[Loc, str]]:
    if isinstance(value, str):
        if value != _HERE and not has_expression(value):
            yield loc, value
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from _names(item, (*loc, place))


def hosts_used(settings: Mapping[str, Value], hosts: Mapping[str, HostDeclaration]) -> frozenset[str]:
    """The declared hosts that a stage with these settings (raw or resolved) may reach, those jumped through included.

    Counts names under `host`, `hosts` and `from` at any depth, and expressions that read `hosts.…`.
    """
    found = mentioned_hosts(settings) & hosts.keys()
    found |= {str(read.path[0]) for read in references(settings) if read.root == "hosts" and read.path} & set(hosts)
    return with_jumps(found, hosts)


def mentioned_hosts(settings: Mapping[str, Value]) -> frozenset[str]:
    """Every text under `host`, `hosts` or `from` at any depth of raw settings: hosts, as far as those are declared."""
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
