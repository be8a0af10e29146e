"""What the passes work on: the composition, where it stands, and what has been found out about it so far."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeAlias

from skyspan.contracts.provider import Spec
from skyspan.model.composition import Composition
from skyspan.model.diagnostic import Diagnostic
from skyspan.model.expression import Loc, Template
from skyspan.planning.names import HostName
from skyspan.planning.source import Source

SpecOf: TypeAlias = Callable[[str], type[Spec]]
"""The model of a provider's settings; raises StageError (with a hint) for a kind that there is not."""

NOTHING: Mapping[str, frozenset[str]] = MappingProxyType({})
NO_NAMES: Mapping[str, HostName] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Text:
    """A text with expressions, where it stands and what it says."""

    loc: Loc
    text: str
    template: Template


@dataclass(frozen=True, slots=True)
class Templates:
    """The workspace's templates of connections: `names` to suggest where one is missing, and those `taken` among the
    composition's `connections` because a stage names them."""

    names: frozenset[str] = frozenset()
    taken: frozenset[str] = frozenset()


NO_TEMPLATES = Templates()


@dataclass(frozen=True, slots=True)
class Draft:
    """A composition on its way through the passes. A pass returns it with more filled in.

    `broken` holds the places (`("stages", "cloud")`) that were left out because they have errors of their own, so
    that nothing is said about their absence. `names` (by host), `needs` and `order` are filled by the passes of those
    names.
    """

    composition: Composition
    source: Source
    spec_of: SpecOf | None = None
    broken: frozenset[Loc] = frozenset()
    templates: Templates = NO_TEMPLATES
    texts: tuple[Text, ...] = ()
    names: Mapping[str, HostName] = field(default_factory=lambda: NO_NAMES)
    needs: Mapping[str, frozenset[str]] = field(default_factory=lambda: NOTHING)
    order: tuple[str, ...] = ()
    findings: tuple[Diagnostic, ...] = ()

    def found(self, findings: Iterable[Diagnostic]) -> Draft:
        """The draft with more findings."""
        return replace(self, findings=(*self.findings, *findings))

    def is_broken(self, loc: Loc) -> bool:
        """Whether `loc`, or what holds it, has an error of its own already."""
        return bool(self.broken) and any(loc[:length] in self.broken for length in range(1, len(loc) + 1))


@dataclass(frozen=True, slots=True)
class Checked:
    """A composition without errors: what each stage needs, and an order in which they can go.

    `needs` holds for every stage those it waits for: the ones it reads, those its hosts' addresses read, and its
    `needs`. `order` is topological and stays as near to the file as that allows. `diagnostics` are warnings. `names`
    says which stage joins a host to a private network; empty where nobody reads such a name.
    """

    composition: Composition
    needs: Mapping[str, frozenset[str]]
    order: tuple[str, ...]
    diagnostics: tuple[Diagnostic, ...] = ()
    names: Mapping[str, HostName] = field(default_factory=lambda: NO_NAMES)
