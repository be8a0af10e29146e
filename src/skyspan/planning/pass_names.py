"""Pass: which stage gives each host its name in a private network, for `hosts.H.fqdn`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from skyspan.contracts.network import NetworkSpec
from skyspan.model.composition import StageDeclaration
from skyspan.model.diagnostic import Diagnostic
from skyspan.model.error import StageError
from skyspan.model.expression import has_expression
from skyspan.planning.draft import Draft, SpecOf
from skyspan.planning.names import FQDN, HostName
from skyspan.planning.settings import named_hosts, settings_of, settings_place
from skyspan.planning.source import finding


def name_hosts(draft: Draft) -> Draft:
    """Fill `names`; report a host that is read and gets its name from two stages."""
    read = frozenset(_read(draft))
    if draft.spec_of is None or not read:
        return draft
    names: dict[str, HostName] = {}
    findings: list[Diagnostic] = []
    for stage, declared in draft.composition.stages.items():
        model = _model(draft.spec_of, declared)
        if model is None:
            continue
        settings = settings_of(declared, draft.composition.connections)
        for loc, host in named_hosts({"hosts": settings.get("hosts")}):
            first = names.setdefault(host, HostName(stage, settings.get(model.domain_setting)))
            if first.stage != stage and host in read:
                summary = f"host {host} gets a name from two stages, {first.stage} and {stage}"
                where = draft.source.value(settings_place(stage, declared, draft.composition.connections, loc))
                hint = f"hosts.{host}.{FQDN} could mean either: keep it in one of them"
                findings.append(finding(draft.source, "ambiguous-name", summary, where, hint))
    return replace(draft, names=names).found(findings)


def _read(draft: Draft) -> Iterator[str]:
    """The hosts whose name somebody reads."""
    for text in draft.texts:
        for read in text.template.reads():
            if read.reference.root == "hosts" and read.reference.path[1:2] == (FQDN,):
                yield str(read.reference.path[0])


def _model(spec_of: SpecOf, declared: StageDeclaration) -> type[NetworkSpec] | None:
    if has_expression(declared.uses):
        return None
    try:
        model = spec_of(declared.uses)
    except StageError:
        return None  # reported where settings are checked
    return model if issubclass(model, NetworkSpec) else None
