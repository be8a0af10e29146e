"""The workspace's templates of connections as a composition uses them: which it names, and where they end up in it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from skyspan.model.composition import Composition
from skyspan.model.diagnostic import Diagnostic
from skyspan.model.value import Value
from skyspan.planning.draft import Templates
from skyspan.planning.settings import CONNECTION, NAMING, ORIGIN, connection_named
from skyspan.planning.source import Source, WithTemplates

if TYPE_CHECKING:
    from skyspan.contracts.store import ConnectionStore

WORKSPACE = "workspace"
"""Where an entry comes from that is marked as a copy."""


@dataclass(frozen=True, slots=True)
class Library:
    """What a workspace holds: the YAML of the templates that were asked for, and the `names` of all where one of those
    is missing."""

    names: frozenset[str] = frozenset()
    texts: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


LookUp: TypeAlias = Callable[[frozenset[str]], Library]
"""Finds templates by name; called only when there is one to be found."""

NO_LIBRARY = Library()


async def look_up(store: ConnectionStore, workspace: str, wanted: frozenset[str]) -> Library:
    """The templates of these names, as far as there are any; where one is missing also the names that there are."""
    records = [await store.connection(workspace, name) for name in sorted(wanted)]
    texts = {record.name: record.text for record in records if record is not None}
    missing = len(texts) < len(wanted)
    names = [record.name for record in await store.connections(workspace)] if missing else texts
    return Library(frozenset(names), texts)


def wanted(composition: Composition) -> frozenset[str]:
    """The templates that its stages name and that it does not hold itself: an entry of `connections:` comes first."""
    named = {connection_named(stage.with_) for stage in composition.stages.values()}
    return frozenset(name for name in named if name is not None and name not in composition.connections)


def providers_of(composition: Composition, library: Library) -> frozenset[str]:
    """The providers that its stages use, those of their connections too."""
    entries = {**{name: parse(name, text)[0] for name, text in library.texts.items()}, **composition.connections}
    return frozenset(
        str(entries.get(connection_named(stage.with_) or "", {}).get("uses", stage.uses))
        if stage.uses == CONNECTION
        else stage.uses
        for stage in composition.stages.values()
    )


@dataclass(frozen=True, slots=True)
class Joined:
    """A composition with the templates that it names among its `connections`, which `source` finds too."""

    composition: Composition
    source: Source
    templates: Templates
    texts: Mapping[str, str]
    findings: tuple[Diagnostic, ...] = ()

    def raw(self, raw: dict[str, Any]) -> dict[str, Any]:
        """The file as plain data with the templates in it: what is recorded, so that it never needs them again."""
        if not self.texts:
            return raw
        copies = {name: self.composition.connections[name] for name in self.templates.taken}
        return {**raw, "connections": {**raw.get("connections", {}), **copies}}

    def digest(self, content: bytes) -> str:
        """SHA-256 of the file's bytes, and of the templates' where there are any."""
        total = hashlib.sha256(content)
        for name in sorted(self.texts):
            text = self.texts[name].encode(errors="surrogatepass")
            total.update(f"\0{name}\0{len(text)}\0".encode() + text)
        return total.hexdigest()

    def told(self, findings: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
        """The findings; those about a template say which stage takes it, and where that is written."""
        users = {file_name(name): self._user(name) for name in self.templates.taken}
        return tuple(
            replace(item, detail="\n".join(filter(None, (item.detail, users[item.where.file]))))
            if item.where.file in users
            else item
            for item in findings
        )

    def _user(self, template: str) -> str:
        for name, stage in self.composition.stages.items():
            if connection_named(stage.with_) == template:
                key = next(key for key in NAMING if key in stage.with_)
                return f"stage {name} starts from it: {self.source.value(('stages', name, 'with', key))}"
        return ""


def join(composition: Composition, source: Source, library: Library) -> Joined:
    """Put the templates of `library` among the composition's `connections`, each marked as a copy."""
    if not library.texts:
        return Joined(composition, source, Templates(library.names), {})
    entries: dict[str, dict[str, Value]] = {}
    sources: dict[str, Source] = {}
    found: list[Diagnostic] = []
    for name, text in sorted(library.texts.items()):
        entry, sources[name], findings = parse(name, text)
        entries[name] = {**entry, ORIGIN: WORKSPACE}
        found += findings
    return Joined(
        composition.model_copy(update={"connections": {**composition.connections, **entries}}),
        WithTemplates(source, sources),
        Templates(library.names, frozenset(entries)),
        library.texts,
        tuple(found),
    )


def copies(connections: Mapping[str, Any]) -> frozenset[str]:
    """The entries of recorded `connections` that are copies of the workspace's templates."""
    return frozenset(
        name for name, entry in connections.items() if isinstance(entry, Mapping) and entry.get(ORIGIN) == WORKSPACE
    )


def parse(name: str, text: str) -> tuple[dict[str, Value], Source, tuple[Diagnostic, ...]]:
    """A template's YAML as plain data, its source, and what is wrong with it as YAML."""
    from skyspan.app.yaml_source import parse_yaml

    raw, source, findings = parse_yaml(text, file_name(name))
    return raw if isinstance(raw, dict) else {}, source, findings


def file_name(template: str) -> str:
    """What stands in the place of a file's name where a template is meant."""
    return f"connection template {template}"
