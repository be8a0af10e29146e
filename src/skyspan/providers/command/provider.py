"""How a command stage is driven."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.contracts.transport import Completed, Effect, Transport
from skyspan.model.change import NO_OUTPUTS, Action, Change, Observation, ResourceChange
from skyspan.model.diagnostic import Diagnostic, Position, Severity
from skyspan.model.error import NotReadyError, OutputError, StageError, ToolFailedError
from skyspan.model.secret import Secret
from skyspan.model.value import OutputValue, digest, masked, secrets_in
from skyspan.providers.command import commands
from skyspan.providers.command.parse import LIMIT, parse_outputs
from skyspan.providers.command.spec import OUTPUT_VARIABLE, CommandSpec, Script
from skyspan.providers.masking import mask_secrets
from skyspan.providers.remembered import Remembered, forget, recall, remember, remember_with_end, stamp_of

_CLEANUP_S = 10.0


class CommandProvider:
    """Runs a command here or on a host, and remembers that it did.

    Evidence is `check`, else `creates`, else the memory of the last apply, which is kept with the stage.
    """

    kind = "command"
    spec = CommandSpec

    async def observe(self, spec: CommandSpec, ctx: ReadContext) -> Observation:
        mark = await recall(ctx.kept)
        if mark is not None and not mark.finished:
            return Observation.absent("an earlier attempt was interrupted")
        if mark is not None and mark.stopped:
            return _seen(mark, healthy=False, reason="stopped")
        missing = await _missing(spec, mark, ctx)
        return Observation.absent(missing) if missing else _seen(mark)

    async def plan(self, spec: CommandSpec, seen: Observation, ctx: ReadContext) -> Change:
        if not seen.exists:
            return _change(Action.CREATE, spec, spec.run, seen, seen.reason)
        mark = await recall(ctx.kept)
        if mark is None and _tells_outputs(spec):
            return _change(Action.UPDATE, spec, spec.run, seen, "it is there already, but its outputs are not known")
        if mark is None:
            return Change.none(seen, "it is there already")
        if mark.effect != _effect(spec):
            return _change(Action.UPDATE, spec, spec.run, seen, "its settings changed")
        if mark.stopped:
            return replace(_change(Action.UPDATE, spec, spec.start or spec.run, seen, "stopped"), outputs=NO_OUTPUTS)
        if mark.spec != _whole(spec):
            reason = "only its check, creates, destroy, start or stop changed: it is not run again"
            return replace(_change(Action.UPDATE, spec, None, seen, reason), outputs=seen.outputs)
        return Change.none(seen)

    async def apply(self, spec: CommandSpec, change: Change, ctx: StageContext) -> Observation:
        if change.action is Action.NONE:
            return await self.observe(spec, ctx)
        if (
            ctx.resumed
            and (done := await recall(ctx.kept)) is not None
            and done.finished
            and done.stamp == stamp_of(ctx)
        ):
            # It was cut off behind its last step.
            _discard_output(ctx)
            return _seen(done)
        # A stage that is new and needs nothing remembered beforehand is spared the look: it costs one write in all.
        mark = None if change.action is Action.CREATE and not _leaves_traces(spec) else await recall(ctx.kept)
        if mark is not None and mark.finished and change.action is Action.UPDATE and mark.effect == _effect(spec):
            if mark.stopped:
                return await self.start(spec, ctx)
            renewed = replace(mark, spec=_whole(spec))
            await remember(ctx.kept, renewed)
            return _seen(renewed)
        return await self._run(spec, mark, ctx)

    async def destroy(self, spec: CommandSpec, ctx: StageContext) -> None:
        mark = await recall(ctx.kept)
        if mark is None:
            return
        if spec.destroy is not None:
            await _perform(spec.destroy, spec, ctx, commands.output_variables(mark.outputs))
            _discard_output(ctx)
        elif spec.created:
            ctx.report.line(f"there is no destroy command: {', '.join(spec.created)} stay")
        await forget(ctx.kept)

    def kept_because(self, spec: CommandSpec) -> str:
        """Without a `stop` command there is nothing to stop."""
        return "" if spec.stop is not None else "it has no `stop` command"

    async def stop(self, spec: CommandSpec, ctx: StageContext) -> None:
        """Run the stop command; without one the stage is left as it is."""
        mark = await recall(ctx.kept)
        if mark is None or not mark.finished or mark.stopped:
            return
        if spec.stop is None:
            ctx.report.line("there is no stop command: left as it is")
            return
        await _perform(spec.stop, spec, ctx, commands.output_variables(mark.outputs))
        await remember(ctx.kept, replace(mark, stopped=True))
        _discard_output(ctx)

    async def start(self, spec: CommandSpec, ctx: StageContext) -> Observation:
        """Run the start command, or else `run`, of a stage that was stopped; a running one is left alone."""
        mark = await recall(ctx.kept)
        if mark is not None and mark.finished and not mark.stopped:
            return await self.observe(spec, ctx)
        if mark is None or not mark.finished or spec.start is None:
            return await self._run(spec, mark, ctx)
        await _perform(spec.start, spec, ctx, commands.output_variables(mark.outputs))
        running = replace(mark, stopped=False)
        await _verify(spec, spec.start, running, ctx)
        await remember(ctx.kept, running)
        _discard_output(ctx)
        return _seen(running)

    def carries_on(self, spec: CommandSpec) -> bool:
        """The same settings give the same commands."""
        return True

    async def in_doubt(self, spec: CommandSpec, effect: str, ctx: ReadContext, *, untouched: bool) -> str:
        """Nothing but its own evidence, or this machine's, tells whether a command ran."""
        if _has_evidence(spec) or (spec.host is None and untouched):
            return ""
        mark = await recall(ctx.kept)
        if mark is not None and mark.finished and mark.stamp == ctx.attempt_id:
            return ""
        return "it has neither `check` nor `creates`, so nothing tells whether its command ran"

    async def preflight(self, settings: Mapping[str, Any], ctx: ReadContext) -> tuple[Diagnostic, ...]:
        """Warns of a program or a folder that is not here yet; an earlier stage may still make it."""
        if settings.get("host") is not None:
            return ()
        workdir = settings.get("workdir", ".")
        folder = ctx.folder / workdir if isinstance(workdir, str) else ctx.folder
        if not folder.is_dir():
            return (
                _warning("missing-folder", f"workdir {workdir!r} does not exist yet", "an earlier stage may make it"),
            )
        run = settings.get("run")
        program = run[0] if isinstance(run, list | tuple) and run else None
        if not isinstance(program, str):
            return ()
        there = (folder / program).exists() if "/" in program else ctx.tools.find(program) is not None
        return () if there else (_warning("missing-tool", f"{program} is not here yet", f"install {program}"),)

    async def _run(self, spec: CommandSpec, mark: Remembered | None, ctx: StageContext) -> Observation:
        if _leaves_traces(spec) and (mark is None or (mark.finished and _has_evidence(spec))):
            # What an interrupted run leaves behind must be undone by destroy, and must not pass for a finished one.
            await remember(ctx.kept, replace(mark or Remembered(finished=False), finished=False, stopped=False))
        outputs = await _perform(spec.run, spec, ctx, {}, stdin=spec.stdin)
        done = Remembered(True, _effect(spec), _whole(spec), stamp_of(ctx), outputs=outputs)
        await _verify(spec, spec.run, done, ctx)
        remember_with_end(ctx.kept, done)
        _discard_output(ctx)
        return _seen(done)


def _output_path(ctx: StageContext) -> Path:
    """Where the stage's command writes its outputs: the same file when another engine carries the attempt on."""
    return ctx.work / f"output.{ctx.attempt_id or f'{ctx.epoch}.{ctx.attempt}'}"


def _discard_output(ctx: StageContext) -> None:
    """The outputs are remembered. In a run the file stays until the attempt's outcome is recorded, as an engine that
    carries the attempt on reads it again; then the engine removes it."""
    if not ctx.attempt_id:
        _output_path(ctx).unlink(missing_ok=True)


def _seen(mark: Remembered | None, *, healthy: bool = True, reason: str = "") -> Observation:
    if mark is None:
        return Observation(True, fingerprint="found")
    state = f"{mark.stamp}.stopped" if mark.stopped else mark.stamp
    return Observation(True, healthy, fingerprint=state, reason=reason, outputs=mark.outputs)


def _change(action: Action, spec: CommandSpec, script: Script | None, seen: Observation, reason: str) -> Change:
    resources = () if script is None else (ResourceChange(commands.shown(script), action, spec.host or ""),)
    meaning = f"{action.value} {digest(masked([script, spec.host, spec.env, spec.stdin, spec.workdir]))}"
    return Change(action, reason, resources, based_on=seen.fingerprint, meaning=meaning)


def _effect(spec: CommandSpec) -> str:
    return digest([spec.run, spec.host, spec.env, spec.stdin, spec.workdir])


def _whole(spec: CommandSpec) -> str:
    return digest([spec.check, spec.creates, spec.destroy, spec.start, spec.stop]) + _effect(spec)


def _secrets(spec: CommandSpec) -> frozenset[Secret]:
    scripts = (spec.run, spec.check, spec.destroy, spec.start, spec.stop)
    return secrets_in([*spec.env.values(), spec.stdin, *scripts])


def _has_evidence(spec: CommandSpec) -> bool:
    return spec.check is not None or bool(spec.creates)


def _leaves_traces(spec: CommandSpec) -> bool:
    return _has_evidence(spec) or spec.destroy is not None or spec.stop is not None


async def _missing(spec: CommandSpec, mark: Remembered | None, ctx: ReadContext) -> str:
    """Why the thing counts as absent; empty when it is there."""
    if spec.check is not None:
        extra = commands.output_variables(mark.outputs) if mark else {}
        command = commands.command_for(spec.check, spec, ctx.folder, effect=Effect.READ, extra=extra)
        done = await ctx.places.reach(spec.host).query(command)
        return "" if done.ok else f"its check {commands.ending(done)}"
    if spec.created and spec.host is not None:
        found = await ctx.places.reach(spec.host).query(commands.existence_query(spec, ctx.folder))
        return "" if found.ok else f"not all of {', '.join(spec.created)} exist on {spec.host}"
    if spec.created:
        folder = ctx.folder / spec.workdir
        absent = [path for path in spec.created if not (folder / path).exists()]
        return f"{', '.join(absent)} does not exist" if absent else ""
    return "" if mark is not None else "it has not been run yet"


async def _verify(spec: CommandSpec, script: Script, mark: Remembered, ctx: StageContext) -> None:
    missing = await _missing(spec, mark, ctx) if _has_evidence(spec) else ""
    if missing:
        raise NotReadyError(
            f"`{commands.shown(script)}` ended well{_where(spec)}, but {missing}",
            hint="make the command wait until the thing is there, or correct `check` or `creates`",
        )


async def _perform(
    script: Script,
    spec: CommandSpec,
    ctx: StageContext,
    extra: Mapping[str, str | Secret],
    stdin: str | Secret | None = None,
) -> Mapping[str, OutputValue]:
    """Run one of the stage's scripts and return the outputs it wrote; raises ToolFailedError with its last words."""
    place = ctx.places.reach(spec.host)
    run = _run_here if spec.host is None else _run_there
    done, data = await run(place, script, spec, ctx, extra, stdin)
    if not done.ok:
        raise ToolFailedError(
            f"`{commands.shown(script)}` {commands.ending(done)}{_where(spec)}",
            detail=mask_secrets(done.last_words(), _secrets(spec)),
            hint=f"see its whole output: skyspan logs --stage {ctx.address.name}",
        )
    try:
        outputs = parse_outputs(data, _secrets(spec))
    except OutputError:
        _discard_output(ctx)
        raise
    for output in outputs.values():
        if output.sensitive and isinstance(output.value, str):
            ctx.report.conceal(Secret(output.value))
    return outputs or NO_OUTPUTS


async def _run_here(
    place: Transport,
    script: Script,
    spec: CommandSpec,
    ctx: StageContext,
    extra: Mapping[str, str | Secret],
    stdin: str | Secret | None,
) -> tuple[Completed, bytes]:
    path = _output_path(ctx)
    _make_output(path, fresh=not ctx.resumed)
    env = {**extra, OUTPUT_VARIABLE: str(path)}
    command = commands.command_for(script, spec, ctx.folder, extra=env, stdin=stdin)
    try:
        done = await place.run(command, ctx.report.output)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    if not done.ok:
        path.unlink(missing_ok=True)
        return done, b""
    # It stays until its content is remembered, so that an engine that carries this on finds it.
    return done, _read_output(path)


async def _run_there(
    place: Transport,
    script: Script,
    spec: CommandSpec,
    ctx: StageContext,
    extra: Mapping[str, str | Secret],
    stdin: str | Secret | None,
) -> tuple[Completed, bytes]:
    made = await place.run(commands.make_output_folder())
    folder = made.text().strip()
    if not made.ok or not folder.startswith("/"):
        said = mask_secrets(made.last_words(), _secrets(spec))
        raise ToolFailedError(f"{spec.host} could not make a temporary folder", detail=said)
    try:
        env = {**extra, OUTPUT_VARIABLE: f"{folder}/output"}
        command = commands.command_for(script, spec, ctx.folder, extra=env, stdin=stdin)
        done = await place.run(command, ctx.report.output)
        if not done.ok:
            return done, b""
        collected = await place.run(commands.collect_output(folder, LIMIT + 1))
        if not collected.ok:
            said = mask_secrets(collected.last_words(), _secrets(spec))
            raise OutputError(f"the outputs could not be read from {spec.host}", detail=said)
        return done, collected.stdout
    finally:
        # Best effort: a host that went away keeps an empty private folder, and the first error is the one to see.
        with contextlib.suppress(StageError, TimeoutError):
            async with asyncio.timeout(_CLEANUP_S):
                await place.run(commands.remove_output_folder(folder))


def _make_output(path: Path, *, fresh: bool) -> None:
    """Make the output file private, and empty unless it may hold something already; the work folder may have been
    deleted."""
    flags = os.O_CREAT | (os.O_TRUNC if fresh else 0) | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        handle = os.open(path, flags, 0o600)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(path, flags, 0o600)
    os.close(handle)


def _read_output(path: Path) -> bytes:
    """What was written, at most one byte more than is allowed; a file that was removed holds nothing."""
    try:
        with path.open("rb") as file:
            return file.read(LIMIT + 1)
    except FileNotFoundError:
        return b""


def _where(spec: CommandSpec) -> str:
    return f" on {spec.host}" if spec.host is not None else ""


def _warning(code: str, summary: str, hint: str) -> Diagnostic:
    return Diagnostic(code, summary, Position(""), Severity.WARNING, hint=hint)


def _tells_outputs(spec: CommandSpec) -> bool:
    """Whether running it gives outputs: then a thing made by somebody else still has to be run once to learn them."""
    words = (spec.run,) if isinstance(spec.run, str | Secret) else spec.run
    return any(OUTPUT_VARIABLE in (word.reveal() if isinstance(word, Secret) else word) for word in words)
