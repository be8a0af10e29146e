"""What would stop a run, found before anything is touched: missing tools, files, permissions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from skyspan.app.contexts import RunContexts
from skyspan.app.prepare import Prepared
from skyspan.attempts.contexts import ContextRequest
from skyspan.contracts.provider import Providers, SupportsPreflight
from skyspan.contracts.store import StageRecord
from skyspan.model.address import DeploymentAddress, StageAddress
from skyspan.model.diagnostic import Diagnostic, Severity
from skyspan.model.error import PreflightError
from skyspan.model.event import Event
from skyspan.model.expression import ExpressionError, evaluate
from skyspan.model.secret import Secret
from skyspan.model.value import Unknown, Value
from skyspan.planning.resolve import Situation
from skyspan.planning.settings import settings_of


class _NoJournal:
    """Preflight belongs to no attempt: what it says goes nowhere."""

    async def record(self, event: Event, put: StageRecord | None = None, removed: StageAddress | None = None) -> None:
        """Nothing is recorded."""

    def note(self, event: Event) -> None:
        """Nothing is noted."""


async def preflight(
    prepared: Prepared,
    deployment: DeploymentAddress,
    stages: Iterable[str],
    secrets: Mapping[str, Secret],
    providers: Providers,
    contexts: RunContexts,
) -> tuple[Diagnostic, ...]:
    """Ask the providers of `stages`. Returns warnings; raises PreflightError with every error."""
    found = await asyncio.gather(
        *(_ask(prepared, deployment.stage(name), secrets, providers, contexts) for name in stages)
    )
    diagnostics = tuple(item for items in found for item in items)
    if any(item.severity is Severity.ERROR for item in diagnostics):
        raise PreflightError(_once(diagnostics))
    return diagnostics


async def _ask(
    prepared: Prepared,
    address: StageAddress,
    secrets: Mapping[str, Secret],
    providers: Providers,
    contexts: RunContexts,
) -> list[Diagnostic]:
    declared = prepared.checked.composition.stages[address.name]
    provider = providers.get(declared.uses)
    if not isinstance(provider, SupportsPreflight):
        return []
    checked = prepared.checked
    situation = Situation(
        checked.composition, prepared.inputs, secrets=secrets, folder=prepared.folder, names=checked.names
    )
    raw_settings = settings_of(declared, prepared.checked.composition.connections)
    settings = {name: value for name, raw in raw_settings.items() if (value := _known(raw, situation)) is not _OPEN}
    request = ContextRequest(address, prepared.folder, {}, 1, None, _NoJournal())
    async with contexts.enter(request) as made:
        said = await provider.preflight(settings, made.reading)
    if not said:
        return []
    where = prepared.source.value(("stages", address.name, "uses"))
    return [
        replace(
            item, where=where, excerpt=prepared.source.excerpt(where), summary=f"stage {address.name}: {item.summary}"
        )
        for item in said
    ]


_OPEN = Unknown(frozenset({"not yet"}))


def _known(raw: Any, situation: Situation) -> Value:
    try:
        value = evaluate(raw, situation)
    except (LookupError, ExpressionError):
        return _OPEN
    return _OPEN if isinstance(value, Unknown) else value


def _once(diagnostics: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    return tuple(dict.fromkeys(diagnostics))
