"""Pass: hosts that stages and other hosts name exist, and lead somewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from skyspan.model.diagnostic import Diagnostic
from skyspan.model.expression import Loc, has_expression
from skyspan.model.value_type import conform, parse_type
from skyspan.planning.draft import Draft
from skyspan.planning.graph import cycles
from skyspan.planning.settings import HERE, named_hosts, settings_of, settings_place
from skyspan.planning.source import finding, nearest


def check_hosts(draft: Draft) -> Draft:
    """Report hosts that do not exist, ports that are none, and hosts that need each other."""
    return draft.found([*_in_stages(draft), *_in_hosts(draft), *_circles(draft)])


def _in_stages(draft: Draft) -> Iterator[Diagnostic]:
    composition = draft.composition
    for name, stage in composition.stages.items():
        for inner, host in named_hosts(settings_of(stage, composition.connections)):
            yield from _missing(draft, host, settings_place(name, stage, composition.connections, inner))


def _in_hosts(draft: Draft) -> Iterator[Diagnostic]:
    if HERE in draft.composition.hosts:
        where = draft.source.key(("hosts", HERE))
        hint = "give the host another name"
        yield finding(draft.source, "reserved-name", f"{HERE!r} is this machine, and cannot be a host", where, hint)
    for name, host in draft.composition.hosts.items():
        if host.jump is not None and not has_expression(host.jump):
            yield from _missing(draft, host.jump, ("hosts", name, "jump"))
        if has_expression(host.port):
            continue
        try:
            port = int(host.port) if isinstance(host.port, str) and host.port.isdigit() else host.port
            conform(port, parse_type("port"))
        except ValueError as error:
            where = draft.source.value(("hosts", name, "port"))
            yield finding(draft.source, "wrong-type", f"port of host {name}: {error}", where)


def _missing(draft: Draft, host: str, loc: Loc) -> Iterator[Diagnostic]:
    hosts = draft.composition.hosts
    if host not in hosts and not draft.is_broken(("hosts", host)):
        hint = nearest(host, hosts, "hosts")
        yield finding(draft.source, "unknown-host", f"there is no host {host!r}", draft.source.value(loc), hint)


def _circles(draft: Draft) -> Iterator[Diagnostic]:
    for circle in cycles(_host_graph(draft)):
        where = draft.source.key(("hosts", circle[0]))
        way = " → ".join((*circle, circle[0]))
        yield finding(draft.source, "cycle", f"hosts need each other to be reached: {way}", where)


def _host_graph(draft: Draft) -> Mapping[str, frozenset[str]]:
    needs: dict[str, set[str]] = {name: set() for name in draft.composition.hosts}
    for name, host in draft.composition.hosts.items():
        if host.jump is not None:
            needs[name].add(host.jump)
    for text in draft.texts:
        if text.loc[0] == "hosts":
            reads = (read.reference for read in text.template.reads())
            needs[str(text.loc[1])] |= {str(read.path[0]) for read in reads if read.root == "hosts" and read.path}
    return {name: frozenset(needed) for name, needed in needs.items()}
