"""Pass: what each stage waits for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from skyspan.model.composition import Composition
from skyspan.model.diagnostic import Position
from skyspan.model.expression import Reference
from skyspan.planning.draft import Draft, Text
from skyspan.planning.graph import reach
from skyspan.planning.names import FQDN, HostName
from skyspan.planning.settings import connection_named, is_template, mentioned_hosts, settings_of, settings_place


def infer_dependencies(draft: Draft) -> Draft:
    """Fill `needs`: stages that a stage's settings and condition read, that its hosts read, and its own `needs`."""
    composition = draft.composition
    owned = _by_owner(draft.texts)
    host_stages = _stages_behind_hosts(draft, owned)
    needs: dict[str, frozenset[str]] = {}
    for name, stage in composition.stages.items():
        needed = {*stage.needs, *_stages_read(_texts_of(composition, owned, name), draft.names)}
        for host in _hosts_of(composition, owned, name):
            needed |= host_stages.get(host, frozenset())
        needs[name] = frozenset(needed & composition.stages.keys())
    return replace(draft, needs=needs)


def why(draft: Draft, stage: str, needed: str) -> tuple[str, Position]:
    """How `stage` comes to need `needed`, in words, and where that is written."""
    source, composition = draft.source, draft.composition
    owned = _by_owner(draft.texts)
    for text in _texts_of(composition, owned, stage):
        place = _where_read(draft, text, needed)
        if place is not None:
            return "reads its outputs", place
    declared = composition.stages[stage].needs
    if needed in declared:
        return "names it in needs", source.value(("stages", stage, "needs", declared.index(needed)))
    for host in sorted(_hosts_of(composition, owned, stage)):
        for text in owned.get(("hosts", host), ()):
            place = _where_read(draft, text, needed)
            if place is not None:
                return f"uses host {host}, which reads its outputs", place
    return "needs it", source.key(("stages", stage))


def _where_read(draft: Draft, text: Text, needed: str) -> Position | None:
    for read in text.template.reads():
        if _stage_read(read.reference, draft.names) == needed:
            return draft.source.within(text.loc, text.text, read.offset)
    return None


def _stages_read(texts: Iterable[Text], names: Mapping[str, HostName]) -> Iterator[str]:
    """The stages whose results are read: their outputs, or the names that they give to hosts."""
    for text in texts:
        for read in text.template.reads():
            stage = _stage_read(read.reference, names)
            if stage is not None:
                yield stage


def _stage_read(reference: Reference, names: Mapping[str, HostName]) -> str | None:
    match reference.root, reference.path:
        case "stages", (stage, *_):
            return str(stage)
        case "hosts", (str(host), field, *_) if field == FQDN and host in names:
            return names[host].stage
        case _:
            return None


def _by_owner(texts: Iterable[Text]) -> Mapping[tuple[str, str], list[Text]]:
    owned: dict[tuple[str, str], list[Text]] = {}
    for text in texts:
        owned.setdefault((str(text.loc[0]), str(text.loc[1])), []).append(text)
    return owned


def _texts_of(composition: Composition, owned: Mapping[tuple[str, str], list[Text]], stage: str) -> Iterator[Text]:
    """The texts that make up a stage: its own, and what it leaves of those of the connection it starts from."""
    yield from owned.get(("stages", stage), ())
    declared, connections = composition.stages[stage], composition.connections
    name = connection_named(declared.with_)
    if name is None or name not in connections:
        return
    depth = 3 if is_template(connections[name]) else 2
    for text in owned.get(("connections", name), ()):
        if settings_place(stage, declared, connections, text.loc[depth:]) == text.loc:
            yield text


def _read(texts: Iterable[Text], root: str) -> Iterator[str]:
    """The names below `root` that are read."""
    for text in texts:
        for read in text.template.reads():
            if read.reference.root == root and read.reference.path:
                yield str(read.reference.path[0])


def _hosts_of(composition: Composition, owned: Mapping[tuple[str, str], list[Text]], stage: str) -> frozenset[str]:
    """The hosts a stage uses, with all that those are reached through."""
    settings = settings_of(composition.stages[stage], composition.connections)
    used = {*mentioned_hosts(settings), *_read(_texts_of(composition, owned, stage), "hosts")}
    return reach(_host_graph(composition, owned), used) if used else frozenset()


def _host_graph(composition: Composition, owned: Mapping[tuple[str, str], list[Text]]) -> Mapping[str, tuple[str, ...]]:
    """What each host needs of other hosts: the one it jumps through, and those it reads."""
    return {
        name: (*_read(owned.get(("hosts", name), ()), "hosts"), *((host.jump,) if host.jump else ()))
        for name, host in composition.hosts.items()
    }


def _stages_behind_hosts(draft: Draft, owned: Mapping[tuple[str, str], list[Text]]) -> Mapping[str, frozenset[str]]:
    return {
        name: frozenset(_stages_read(owned.get(("hosts", name), ()), draft.names)) for name in draft.composition.hosts
    }
