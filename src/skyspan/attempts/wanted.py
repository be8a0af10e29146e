"""What is wanted of a stage: its settings and hosts with every value in place, validated, with their fingerprint."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skyspan.attempts.contexts import Contexts
from skyspan.attempts.host_record import host_records, restored_hosts
from skyspan.attempts.knowledge import Knowledge
from skyspan.attempts.work import Work, conceal, conceal_outputs
from skyspan.contracts.engine import Outcome
from skyspan.contracts.host import Host
from skyspan.contracts.provider import Provider, Spec, SupportsSources
from skyspan.contracts.store import StageRecord
from skyspan.model.change import Observation
from skyspan.model.composition import OutputDeclaration
from skyspan.model.error import SpecError
from skyspan.model.lifecycle import StageStatus
from skyspan.model.value import OutputValue, Unknown, Value, digest
from skyspan.planning.resolve import Absent, resolve_condition, resolve_hosts, resolve_settings, stage_hosts
from skyspan.planning.shape import build_spec


@dataclass(frozen=True, slots=True)
class Wanted:
    """A stage with nothing left open. `fingerprint` is empty for one that comes from its record."""

    stage: str
    uses: str
    provider: Provider[Any]
    settings: Mapping[str, Value]
    hosts: Mapping[str, Host]
    spec: Spec
    folder: Path
    fingerprint: str = ""
    outputs: Mapping[str, OutputDeclaration] | None = None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The stage takes no part, by its own condition."""


async def wanted(work: Work) -> Wanted | Unknown | Absent | LeftOut:
    """What the composition wants of the stage, now. Raises SpecError for settings that cannot work."""
    know, stage = work.know, work.stage
    declared = know.declared(stage)
    if declared is None:
        raise SpecError(f"stage {stage} is not in the composition")
    scope = know.scope(stage)
    condition = resolve_condition(stage, scope)
    if isinstance(condition, Unknown | Absent):
        return condition
    if not condition:
        return LeftOut()
    settings = resolve_settings(stage, scope)
    if isinstance(settings, Absent):
        return settings
    names = stage_hosts(declared, {} if isinstance(settings, Unknown) else settings, scope.composition)
    hosts = resolve_hosts(names, scope)
    if isinstance(hosts, Absent):
        return hosts
    if isinstance(settings, Unknown) or isinstance(hosts, Unknown):
        open_parts = [part for part in (settings, hosts) if isinstance(part, Unknown)]
        return Unknown(frozenset().union(*(part.references for part in open_parts)))
    provider = know.means.providers.get(declared.uses)
    spec = build_spec(stage, provider.spec, settings)
    folder = know.wish.folder
    mark = await _fingerprint(know, provider, spec, {"uses": declared.uses, "with": settings, "hosts": hosts})
    return Wanted(stage, declared.uses, provider, settings, hosts, spec, folder, mark, declared.outputs)


def recorded(know: Knowledge, record: StageRecord) -> Wanted:
    """What was last applied of the stage. Raises SpecError when its provider does not know such settings any more."""
    provider = know.means.providers.get(record.uses)
    spec = build_spec(record.address.name, provider.spec, record.spec)
    hosts = restored_hosts(record.hosts)
    folder = Path(record.folder) if record.folder else know.wish.folder
    return Wanted(record.address.name, record.uses, provider, record.spec, hosts, spec, folder)


@asynccontextmanager
async def as_recorded(work: Work, want: Wanted, record: StageRecord) -> AsyncIterator[Contexts]:
    """The contexts in which the real thing is met as it was applied, with every secret of its record concealed."""
    async with work.contexts(want.hosts, want.folder) as contexts:
        conceal([want.settings, record.hosts], contexts.reading)
        conceal_outputs(record.outputs, contexts.reading)
        yield contexts


def settled(want: Wanted, record: StageRecord | None, seen: Observation) -> bool:
    """The skip rule: the same was applied before, to its end, and the real thing is there, healthy and undrifted."""
    if record is None or not record.present or record.stopped or record.fingerprint != want.fingerprint:
        return False
    return seen.exists and seen.healthy and not seen.drifted


def marked(want: Wanted, outputs: Mapping[str, OutputValue]) -> dict[str, OutputValue]:
    """The outputs with those marked sensitive that the composition declares so."""
    declared = want.outputs or {}
    secret = {name for name, output in declared.items() if output.sensitive or output.type == "secret"}
    return {
        name: OutputValue(output.value, sensitive=True) if name in secret else output
        for name, output in outputs.items()
    }


def lacking(work: Work, absent: Absent) -> Outcome:
    """The end of a stage that reads what will not come in this run, without a default for it."""
    lack = work.know.board.lack_of(absent.stage)
    cause = absent.stage if lack is None else lack.cause
    reason = f"it reads outputs of {absent.stage}, which has none: {absent.reason}"
    work.know.board.lack(work.stage, "it was skipped", cause)
    return work.ended(StageStatus.SKIPPED, reason, cause=cause)


def left_out(work: Work) -> Outcome:
    """The end of a stage whose condition does not hold."""
    work.know.board.lack(work.stage, "its `if` is false")
    made = " (what an earlier run made of it stays until it is destroyed)" if work.record is not None else ""
    return work.ended(StageStatus.SKIPPED, f"its `if` is false{made}")


async def _fingerprint(know: Knowledge, provider: Provider[Any], spec: Spec, parts: dict[str, Any]) -> str:
    if isinstance(provider, SupportsSources):
        parts["sources"] = await know.means.digests.digest(know.wish.folder, provider.sources(spec))
    parts["hosts"] = host_records(parts["hosts"])
    return digest(parts, know.means.fingerprint_key)
