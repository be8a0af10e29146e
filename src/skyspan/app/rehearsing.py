"""Wires a rehearsal: the section of a composition, the isolated process, and what happens in the world inside it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from skyspan.model.error import CompositionError, SkyspanError, UsageError
from skyspan.model.value import Value
from skyspan.rehearsal.firstprocess import exit_status
from skyspan.rehearsal.isolation import SBIN, require, run_isolated
from skyspan.rehearsal.material import harmless
from skyspan.rehearsal.report import EventKind, RehearsalEvent, RehearsalReport
from skyspan.rehearsal.spec import Rehearsal

if TYPE_CHECKING:
    from skyspan.app.load import Loaded
    from skyspan.rehearsal.world import World

FILE_NAME = "rehearsal.yaml"
REQUEST = "SKYSPAN_WORLD"
"""Carries the request to the process inside; the world's own environment does not have it."""


@dataclass(frozen=True, slots=True)
class Rehearsable:
    """A composition that can be rehearsed: its file, its name, and its stand-ins."""

    file: Path
    name: str
    world: Rehearsal


def rehearsable(loaded: Loaded) -> Rehearsable:
    """The stand-ins of a composition: its `rehearsal:` section, or rehearsal.yaml beside it.

    Raises CompositionError with every mistake and its place, UsageError when there are none or two.
    """
    beside = loaded.folder / FILE_NAME
    inline = loaded.composition.rehearsal
    if inline is not None and beside.is_file():
        raise UsageError(f"stand-ins are described twice: in {loaded.path.name} and in {FILE_NAME}", hint="keep one")
    if inline is not None:
        world = _validated(inline, {"rehearsal": inline}, loaded.positions, ("rehearsal",))
    elif beside.is_file():
        from skyspan.app.yaml_source import parse_yaml

        raw, source, findings = parse_yaml(beside.read_text("utf-8-sig"), str(_shown(beside)))
        if findings:
            raise CompositionError(findings)
        world = _validated(raw, raw, source, ())
    else:
        raise UsageError(
            f"{loaded.composition.name} has no stand-ins",
            hint=f"describe them in a `rehearsal:` section, or in {FILE_NAME} beside it; see docs/rehearsal.md",
        )
    return Rehearsable(loaded.path, loaded.composition.name, world)


def exec_in_world(given: Rehearsable, command: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run a command in the world, on our terminal; returns its exit status."""
    request = {"file": str(given.file), "name": given.name, "command": list(command)}
    return _enter(given, request, environ)


def run_cycle(
    given: Rehearsable, environ: Mapping[str, str], tell: Callable[[RehearsalEvent], None]
) -> RehearsalReport:
    """Rehearse the whole cycle; `tell` gets every event as it happens.

    Raises SkyspanError when the world itself fails.
    """
    heard, say = os.pipe()
    found: list[RehearsalReport] = []

    def listen() -> None:
        with os.fdopen(heard) as lines:
            for line in lines:
                document = json.loads(line)
                if "report" in document:
                    found.append(RehearsalReport.restore(document["report"]))
                else:
                    tell(RehearsalEvent.restore(document))

    request = {"file": str(given.file), "name": given.name, "events": say}
    status = _enter(given, request, environ, say, listen)
    if not found:
        raise SkyspanError(f"the rehearsal ended without a report (exit status {status})")
    return found[0]


def _enter(
    given: Rehearsable,
    request: dict[str, Any],
    environ: Mapping[str, str],
    inherit: int | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> int:
    path = environ.get("PATH", os.defpath)
    require(path)
    request |= {"world": given.world.model_dump(mode="json", exclude_unset=True)}
    inner = {**harmless(environ), REQUEST: json.dumps(request), "PATH": f"{path}:{SBIN}"}
    # HOME is another one inside, so what it says about provider mirrors has to be named.
    for name in (".tofurc", ".terraformrc"):
        mirror = Path(environ.get("HOME", "/")) / name
        if mirror.is_file():
            inner.setdefault("TF_CLI_CONFIG_FILE", str(mirror))
    return run_isolated((sys.executable, "-m", "skyspan.app.rehearsing"), inner, inherit, meanwhile)


def _validated(raw: Value, whole: Value, source: Any, prefix: tuple[str, ...]) -> Rehearsal:
    from skyspan.planning.shape import shape_findings

    try:
        return Rehearsal.model_validate(raw)
    except ValidationError as error:
        findings = tuple(shape_findings(error, Rehearsal, raw, source, lambda loc: (*prefix, *loc)))
        raise CompositionError(findings) from None


def _shown(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


async def _inside(request: Mapping[str, Any], environ: Mapping[str, str]) -> int:
    """Build the world and do in it what was asked; returns the exit status."""
    from skyspan.rehearsal import control
    from skyspan.rehearsal.world import World
    from skyspan.transports.local import LocalTransport

    here = LocalTransport(environ)
    rehearsal = Rehearsal.model_validate(request["world"])
    began = monotonic()
    events = os.fdopen(request["events"], "w", buffering=1) if "events" in request else None

    def tell(document: Mapping[str, Any]) -> None:
        if events is not None:
            events.write(json.dumps(document) + "\n")

    def happen(kind: EventKind, step: str, text: str) -> None:
        tell(RehearsalEvent(kind, round(monotonic() - began, 3), step, text).document())

    def say(text: str) -> None:
        """A line of the world: an event of the cycle, or for people on standard error."""
        if events is not None:
            happen(EventKind.WORLD, "", text)
        else:
            sys.stderr.write(f"{text}\n")

    world = World(rehearsal, here, here, environ, say)
    # No leaving: when this process ends, the world is gone as a whole, faster than by taking it apart.
    await world.__aenter__()
    await control.serve(world)
    if events is None:
        return await _command(request["command"], world)
    from skyspan.rehearsal.cycle import Cycle

    cycle = Cycle(world, here, request["file"], request["name"], happen)
    report = await _cancellable(cycle.run(monotonic() - began))
    tell({"report": report.document()})
    return 0 if report.passed else 1


async def _command(command: Sequence[str], world: World) -> int:
    """The command on our own streams and terminal, which no transport gives; it gets the signals that we get."""
    loop = asyncio.get_running_loop()
    from_terminal = os.isatty(0)
    pid = 0

    def forward(number: int) -> None:
        if pid and (number != signal.SIGINT or not from_terminal):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    # Before it starts: it may already be answering when we would only get to this.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, forward, number)
    try:
        pid = _spawn(command, world.environment)
    except OSError as error:
        sys.stderr.write(f"cannot run {command[0]}: {error.strerror}\n")
        return 127 if isinstance(error, FileNotFoundError) else 126
    return exit_status((await asyncio.to_thread(os.waitpid, pid, 0))[1])


def _spawn(command: Sequence[str], environ: Mapping[str, str]) -> int:
    return os.posix_spawnp(command[0], list(command), environ)


async def _cancellable(cycle: Any) -> RehearsalReport:
    task: asyncio.Task[RehearsalReport] = asyncio.ensure_future(cycle)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    return await task


def main() -> int:
    """The program inside the namespaces."""
    environ = dict(os.environ)
    request = json.loads(environ.pop(REQUEST))
    try:
        status = asyncio.run(_inside(request, environ))
    except asyncio.CancelledError:
        status = 130
    except SkyspanError as error:
        sys.stderr.write(f"{error}\n")
        status = error.exit_status
    sys.stdout.flush()
    os._exit(status)  # threads of the stand-in cloud may still be busy; they end with us


if __name__ == "__main__":
    sys.exit(main())
