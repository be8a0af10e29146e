"""Wires a rehearsal: the section of a composition, the isolated process, and what happens in the world inside it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from skyspan.app.settings import process_environment, read_settings
from skyspan.model.error import CompositionError, SkyspanError, UsageError
from skyspan.model.value import Value
from skyspan.rehearsal.inner import harmless
from skyspan.rehearsal.isolation import cgroups
from skyspan.rehearsal.isolation.namespaces import SBIN, require, run_isolated
from skyspan.rehearsal.report import EventKind, RehearsalEvent, RehearsalReport
from skyspan.rehearsal.spec import Rehearsal

if TYPE_CHECKING:
    from skyspan.app.load import Loaded
    from skyspan.model.diagnostic import Diagnostic
    from skyspan.model.expression import Loc
    from skyspan.planning.source import Source

FILE_NAME = "rehearsal.yaml"
REQUEST = "SKYSPAN_WORLD"
"""Carries the request to the process inside; the world's own environment does not have it."""


@dataclass(frozen=True, slots=True)
class Rehearsable:
    """A composition that can be rehearsed: its file, its name, its stand-ins, and the YAML of the workspace's templates
    of connections that it names."""

    file: Path
    name: str
    world: Rehearsal
    connections: Mapping[str, str]


def rehearsable(loaded: Loaded, connections: Mapping[str, str], inputs: Mapping[str, str]) -> Rehearsable:
    """The stand-ins of a composition: its `rehearsal:` section, or rehearsal.yaml beside it; `inputs` win over those
    that it gives.

    Raises CompositionError with every mistake and its place, UsageError when there are none or two, and for an input
    that the composition has not, or of another type.
    """
    beside = loaded.folder / FILE_NAME
    inline = loaded.composition.rehearsal
    if inline is not None and beside.is_file():
        raise UsageError(f"stand-ins are described twice: in {loaded.path.name} and in {FILE_NAME}", hint="keep one")
    if inline is not None:
        world = _validated(inline, loaded, loaded.positions, ("rehearsal",))
    elif beside.is_file():
        from skyspan.app.yaml_source import parse_yaml

        raw, source, findings = parse_yaml(beside.read_text("utf-8-sig"), str(_shown(beside)))
        if findings:
            raise CompositionError(findings)
        world = _validated(raw, loaded, source, ())
    else:
        raise UsageError(
            f"{loaded.composition.name} has no stand-ins",
            hint=f"describe them in a `rehearsal:` section, or in {FILE_NAME} beside it; see docs/rehearsal.md",
        )
    world = world.model_copy(update={"inputs": {**world.inputs, **_declared(inputs, loaded)}})
    return Rehearsable(loaded.path, loaded.composition.name, world, connections)


def _declared(inputs: Mapping[str, str], loaded: Loaded) -> Mapping[str, str]:
    """The inputs as they were given: a world that is built for a value of the wrong type would be built in vain."""
    from skyspan.planning.inputs import resolve_inputs
    from skyspan.planning.source import nearest

    composition = loaded.composition
    for name in inputs:
        if name not in composition.inputs:
            hint = nearest(name, composition.inputs, "inputs")
            raise UsageError(f"there is no input {name!r} (--input)", hint=hint)
    meant = {name: composition.inputs[name] for name in inputs}
    resolve_inputs(composition.model_copy(update={"inputs": meant}), inputs)
    return inputs


def exec_in_world(
    given: Rehearsable, command: Sequence[str], environ: Mapping[str, str], tell: Callable[[RehearsalEvent], None]
) -> int:
    """Run a command in the world, on our terminal; returns its exit status. `tell` gets what the world has to say.

    Raises SkyspanError when the world itself fails.
    """
    return _enter(given, {"command": list(command)}, environ, tell)[0]


def run_cycle(
    given: Rehearsable, environ: Mapping[str, str], tell: Callable[[RehearsalEvent], None]
) -> RehearsalReport:
    """Rehearse the whole cycle; `tell` gets every event as it happens.

    Raises SkyspanError when the world itself fails.
    """
    status, report = _enter(given, {}, environ, tell)
    if report is None:
        raise SkyspanError(f"the rehearsal ended without a report (exit status {status})")
    return report


def _enter(
    given: Rehearsable,
    asked: Mapping[str, Any],
    environ: Mapping[str, str],
    tell: Callable[[RehearsalEvent], None],
) -> tuple[int, RehearsalReport | None]:
    """Let `main` do what is asked, in namespaces of its own; its exit status, and the report if it made one."""
    path = environ.get("PATH", os.defpath)
    require(path)
    heard, say = os.pipe()
    found: dict[str, Any] = {}

    def listen() -> None:
        with os.fdopen(heard) as lines:
            for document in map(json.loads, lines):
                if "kind" in document:
                    tell(RehearsalEvent.restore(document))
                else:
                    found.update(document)

    world = given.world.model_dump(mode="json", exclude_unset=True)
    request = {"file": str(given.file), "name": given.name, "events": say, "world": world, **asked}
    request["connections"] = dict(given.connections)
    request["images"] = [str(folder) for folder in read_settings(environ=environ).image_folders]
    request["groups"] = cgroups.own_name(os.getpid())
    inner = {**harmless(environ), REQUEST: json.dumps(request), "PATH": _search(environ, path)}
    # HOME is another one inside, so what it says about provider mirrors has to be named.
    for name in (".tofurc", ".terraformrc"):
        mirror = Path(environ.get("HOME", "/")) / name
        if mirror.is_file():
            inner.setdefault("TF_CLI_CONFIG_FILE", str(mirror))
    hierarchies = cgroups.here()
    cgroups.sweep(hierarchies)
    try:
        status = run_isolated((sys.executable, "-m", "skyspan.app.rehearsing"), inner, say, listen)
    finally:
        cgroups.sweep(hierarchies, own=request["groups"])
    if "error" in found:
        raise SkyspanError(**found["error"])
    return status, RehearsalReport.restore(found["report"]) if "report" in found else None


def _search(environ: Mapping[str, str], path: str) -> str:
    """The PATH inside: our own Python and built tools first."""
    folders = (Path(sys.executable).parent, *read_settings(environ=environ).tool_folders)
    return ":".join([*map(str, folders), path, SBIN])


def _validated(raw: Value, loaded: Loaded, source: Source, prefix: Loc) -> Rehearsal:
    from skyspan.planning.shape import shape_findings

    try:
        world = Rehearsal.model_validate(raw)
    except ValidationError as error:
        findings = tuple(shape_findings(error, Rehearsal, raw, source, lambda loc: (*prefix, *loc)))
        raise CompositionError(findings) from None
    if wrong := tuple(_trouble_findings(world, loaded, source, prefix)):
        raise CompositionError(wrong)
    return world


def _trouble_findings(world: Rehearsal, loaded: Loaded, source: Source, prefix: Loc) -> Iterator[Diagnostic]:
    """What no rehearsal could do or judge: words that mean nothing, a stage that is not there."""
    from skyspan.planning.source import finding, nearest
    from skyspan.rehearsal.faults.words import mistakes

    for number, error in mistakes(world):
        where = source.value((*prefix, "trouble", number, "fault"))
        yield finding(source, "impossible-fault", error.summary, where, error.hint)
    stages = loaded.composition.stages
    for number, trouble in enumerate(world.trouble):
        if trouble.stage not in stages:
            where = source.value((*prefix, "trouble", number, "stage"))
            hint = nearest(trouble.stage, stages, "stages")
            yield finding(source, "unknown-stage", f"there is no stage {trouble.stage}", where, hint)


def _shown(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


async def _inside(
    request: Mapping[str, Any], environ: Mapping[str, str], happen: Callable[[EventKind, str, str], None]
) -> tuple[int, RehearsalReport | None]:
    """Build the world and do in it what was asked; the exit status, and the report of a cycle."""
    from skyspan.contracts.transport import Command
    from skyspan.rehearsal import instructions
    from skyspan.rehearsal.places import Ground
    from skyspan.rehearsal.world import World
    from skyspan.transports.local import LocalTransport

    here = LocalTransport(environ)
    began = monotonic()
    rehearsal = Rehearsal.model_validate(request["world"])
    ground = Ground(Path(request["file"]).parent, tuple(map(Path, request["images"])), request["groups"])
    world = World(rehearsal, here, here, environ, lambda text: happen(EventKind.WORLD, "", text), ground)
    # No leaving: when this process ends, the world is gone as a whole, faster than by taking it apart.
    await world.__aenter__()
    await instructions.serve(world)
    for name, text in request["connections"].items():
        argv = (sys.executable, "-m", "skyspan", "connections", "add", name, "-")
        await here.run(Command(argv, stdin=text.encode(), env=world.environment))
    if "command" in request:
        return await _command(request["command"], world.environment, happen), None
    from skyspan.rehearsal.cycle import Cycle

    report = await _cancellable(Cycle(world, here, request["file"], request["name"], happen).run(monotonic() - began))
    return 0 if report.passed else 1, report


async def _command(
    command: Sequence[str], environ: Mapping[str, str], happen: Callable[[EventKind, str, str], None]
) -> int:
    from skyspan.transports.attached import run_attached

    try:
        return await run_attached(command, environ)
    except OSError as error:
        happen(EventKind.WORLD, "", f"cannot run {command[0]}: {error.strerror}")
        return 127 if isinstance(error, FileNotFoundError) else 126


async def _cancellable(cycle: Coroutine[Any, Any, RehearsalReport]) -> RehearsalReport:
    task = asyncio.ensure_future(cycle)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    return await task


def main() -> int:
    """The program inside the namespaces: it says by events, one JSON document a line, what there is to show."""
    environ = dict(process_environment())
    request = json.loads(environ.pop(REQUEST))
    os.set_inheritable(request["events"], False)
    began = monotonic()
    with os.fdopen(request["events"], "w", buffering=1) as events:

        def happen(kind: EventKind, step: str, text: str) -> None:
            event = RehearsalEvent(kind, round(monotonic() - began, 3), step, text)
            events.write(json.dumps(event.document()) + "\n")

        try:
            status, report = asyncio.run(_inside(request, environ, happen))
            if report is not None:
                events.write(json.dumps({"report": report.document()}) + "\n")
        except asyncio.CancelledError:
            status = 130
        except SkyspanError as error:
            said = {"summary": error.summary, "detail": error.detail, "hint": error.hint}
            events.write(json.dumps({"error": said}) + "\n")
            status = error.exit_status
    os._exit(status)  # threads of the stand-in cloud may still be busy; they end with us


if __name__ == "__main__":
    sys.exit(main())
