"""Pass: inputs, hosts and connections that nobody reads get a warning."""

from __future__ import annotations

from collections.abc import Iterator

from skyspan.model.diagnostic import Diagnostic, Severity
from skyspan.model.expression import Loc, has_expression
from skyspan.planning.draft import Draft
from skyspan.planning.settings import connection_named, mentioned_hosts, settings_of
from skyspan.planning.source import finding


def warn_unused(draft: Draft) -> Draft:
    """Warn about what is declared for nobody; silent while there are errors, which may be the reason."""
    return draft if draft.findings else draft.found(_findings(draft))


def _findings(draft: Draft) -> Iterator[Diagnostic]:
    composition = draft.composition
    read = {
        (found.reference.root, str(found.reference.path[0]))
        for text in draft.texts
        for found in text.template.reads()
        if found.reference.path
    }
    for name in composition.inputs:
        if ("inputs", name) not in read:
            yield _warning(draft, ("inputs", name), "input")
    named = {host.jump for host in composition.hosts.values()}
    dynamic = False
    for stage in composition.stages.values():
        settings = settings_of(stage, composition.connections)
        named |= mentioned_hosts(settings)
        places = ("host", "hosts", "from", "through", "between")
        dynamic = dynamic or any(has_expression(settings.get(key)) for key in places)
    for name in composition.hosts:
        # Providers may name hosts in ways of their own (an inventory's groups), so any mention counts.
        if ("hosts", name) not in read and name not in named and not dynamic and not _anywhere(draft, name):
            yield _warning(draft, ("hosts", name), "host")
    used = {connection_named(stage.with_) for stage in composition.stages.values()}
    for name in composition.connections:
        if name not in used:
            yield _warning(draft, ("connections", name), "connection")


def _anywhere(draft: Draft, name: str) -> bool:
    return any(_holds(stage.with_, name) for stage in draft.composition.stages.values())


def _holds(value: object, name: str) -> bool:
    if isinstance(value, dict):
        return any(_holds(item, name) for item in value.values())
    if isinstance(value, list | tuple):
        return any(_holds(item, name) for item in value)
    return value == name


def _warning(draft: Draft, loc: Loc, what: str) -> Diagnostic:
    summary = f"{what} {loc[-1]} is not used"
    return finding(draft.source, "unused", summary, draft.source.key(loc), severity=Severity.WARNING)
