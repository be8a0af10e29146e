"""A composition made ready for a run: loaded or recalled, checked, with its inputs and secrets."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skyspan.app.library import copies, look_up
from skyspan.app.load import read
from skyspan.app.session import Session
from skyspan.contracts.store import DeploymentRecord
from skyspan.model.composition import Composition
from skyspan.model.error import CompositionError, UsageError
from skyspan.model.expression import Loc, parse, texts
from skyspan.model.secret import Secret
from skyspan.model.value import Value, digest
from skyspan.planning.draft import Checked, Templates
from skyspan.planning.inputs import resolve_inputs
from skyspan.planning.passes import check
from skyspan.planning.settings import laid_over, place_in
from skyspan.planning.source import NoSource, Source, finding
from skyspan.providers.registry import Registry


@dataclass(frozen=True, slots=True)
class Given:
    """What a person gave for a run: the file, inputs from the command line and from a file."""

    path: Path
    inputs: Mapping[str, str] = field(default_factory=dict)
    inputs_file: str | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A composition ready to run. `raw` is the file as plain data, `digest` that of its bytes."""

    name: str
    folder: Path
    raw: Mapping[str, Any]
    checked: Checked
    source: Source
    inputs: Mapping[str, Value] = field(repr=False)
    digest: str = ""

    @property
    def inputs_digest(self) -> str:
        """A digest of the inputs that are no secrets."""
        return digest({name: value for name, value in self.inputs.items() if not isinstance(value, Secret)})


async def prepare(session: Session, given: Given, registry: Registry) -> Prepared:
    """Load, check and complete a composition. Raises CompositionError or UsageError; touches nothing."""
    reading = read(given.path)
    library = await look_up(session.store, session.settings.workspace, reading.wanted)
    loaded, checked = reading.checked(registry.spec_of, library)
    file = _inputs_file(given.inputs_file) if given.inputs_file else {}
    inputs = resolve_inputs(loaded.composition, given.inputs, file, session.settings.inputs)
    return Prepared(
        loaded.composition.name, loaded.folder, loaded.raw, checked, loaded.positions, inputs, loaded.digest
    )


def recall(record: DeploymentRecord, registry: Registry) -> Prepared:
    """The composition as a deployment last used it, with the inputs of then. Raises UsageError when there is none."""
    if not record.composition:
        raise UsageError(f"{record.address.name} was never brought up", hint="skyspan up")
    source = NoSource(f"{record.folder}/skyspan.yaml (as last used)")
    composition = Composition.model_validate(record.composition)
    templates = Templates(taken=copies(composition.connections))
    checked = check(composition, source, registry.spec_of, templates=templates)
    return Prepared(
        record.address.name,
        Path(record.folder),
        record.composition,
        checked,
        source,
        record.inputs,
        digest(record.composition),
    )


async def read_secrets(session: Session, prepared: Prepared) -> dict[str, Secret]:
    """The secrets that the composition reads. Raises CompositionError that names every one that is not set."""
    stand_ins = _rehearsal_secrets(session.settings.rehearsal_secrets)
    found: dict[str, Secret] = {}
    missing = []
    for name, (loc, optional) in secrets_read(prepared.raw).items():
        secret = stand_ins.get(name) or await session.store.secret(session.settings.workspace, name)
        if secret is not None:
            found[name] = secret
        if secret is not None or optional:
            continue
        hint = f"echo -n VALUE | skyspan secrets set {name}"
        summary = f"secret {name} is not set in workspace {session.settings.workspace}"
        missing.append(finding(prepared.source, "missing-secret", summary, prepared.source.value(loc), hint))
    if missing:
        raise CompositionError(missing)
    return found


def secrets_read(raw: Mapping[str, Any]) -> dict[str, tuple[Loc, bool]]:
    """Each secret that is read: where first, and whether every reading of it has a default."""
    found: dict[str, tuple[Loc, bool]] = {}
    for loc, text in _texts(raw):
        for item in parse(text).reads():
            if item.reference.root == "secrets" and item.reference.path:
                name = str(item.reference.path[0])
                first, optional = found.get(name, (loc, True))
                found[name] = (first, optional and item.guarded)
    return found


def _texts(raw: Mapping[str, Any]) -> Iterator[tuple[Loc, str]]:
    """Every text with an expression that a run may need, and where it stands."""
    yield from texts(raw.get("hosts"), ("hosts",))
    connections = raw.get("connections") or {}
    for name, stage in raw.get("stages", {}).items():
        at, own = ("stages", name), stage.get("with") or {}
        yield from texts({key: value for key, value in stage.items() if key != "with"}, at)
        for loc, text in texts(laid_over(own, connections)):
            yield place_in((*at, "with"), own, connections, loc), text


def _rehearsal_secrets(path: Path | None) -> dict[str, Secret]:
    if path is None:
        return {}
    return {name: Secret(text) for name, text in json.loads(path.read_text()).items()}


def _inputs_file(name: str) -> dict[str, Value]:
    path = Path(name)
    if not path.is_file():
        raise UsageError(f"there is no inputs file {name}")
    from skyspan.app.yaml_source import parse_yaml

    data, _, findings = parse_yaml(path.read_text(encoding="utf-8-sig"), name)
    if findings:
        raise CompositionError(findings)
    if not isinstance(data, dict):
        raise UsageError(f"{name} must hold a mapping of inputs to values")
    return data
