"""Drives ansible-playbook: files for one run, its event stream, and what it came to."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.contracts.transport import Command, Completed, Effect, Stream
from skyspan.model.change import Action, Change, Observation, ResourceChange
from skyspan.model.diagnostic import Diagnostic, Position
from skyspan.model.error import (
    NotReadyError,
    SpecError,
    StageError,
    ToolFailedError,
    ToolMissingError,
    UnreachableError,
)
from skyspan.model.secret import Secret
from skyspan.model.value import OutputValue, digest, leaves, revealed, secrets_in
from skyspan.providers.ansible import commands
from skyspan.providers.ansible.applied import origin
from skyspan.providers.ansible.inventory import inventory, known_hosts_lines
from skyspan.providers.ansible.parse import LineSplitter, Recap, Started, TaskResult, parse_line
from skyspan.providers.ansible.spec import AnsibleSpec
from skyspan.providers.masking import holds_secret, mask_secrets
from skyspan.providers.remembered import Remembered, forget, recall, remember, stamp_of

_GET_ANSIBLE = "install Ansible with its collections: `apt-get install ansible`, or `pip install ansible`"
_SIBLINGS = ("roles", "tasks", "handlers", "templates", "files", "vars", "group_vars", "host_vars", "library")


@dataclass(slots=True)
class _Told:
    """What a run has told so far."""

    results: list[TaskResult] = field(default_factory=list)
    recap: Recap = field(default_factory=Recap)
    remarks: list[str] = field(default_factory=list)


class AnsibleProvider:
    """Configures hosts with a playbook; set_stats become outputs, pending changes in check mode are drift."""

    kind = "ansible"
    spec = AnsibleSpec

    def sources(self, spec: AnsibleSpec) -> tuple[str, ...]:
        """The playbooks, what stands beside them, and the requirements."""
        named = [name for name in (spec.playbook, spec.destroy, spec.requirements) if name]
        folder = Path(spec.playbook).parent
        return (*named, *(str(folder / name) for name in _SIBLINGS))

    async def preflight(self, settings: Mapping[str, Any], ctx: ReadContext) -> tuple[Diagnostic, ...]:
        """Ansible itself, and the files that are named."""
        found = []
        if ctx.tools.find("ansible-playbook") is None:
            found.append(
                Diagnostic("missing-tool", "ansible-playbook is not installed", Position(""), hint=_GET_ANSIBLE)
            )
        for key in ("playbook", "destroy", "requirements"):
            name = settings.get(key)
            if isinstance(name, str) and not (ctx.folder / name).is_file():
                found.append(Diagnostic("missing-file", f"no file {name!r} beside the composition", Position("")))
        return tuple(found)

    async def observe(self, spec: AnsibleSpec, ctx: ReadContext) -> Observation:
        """Absent until it was applied; then, in check mode, what the playbook would change."""
        mark = await recall(ctx.kept)
        if mark is None or not mark.finished:
            return Observation.absent("an earlier run was interrupted" if mark else "the playbook has not run yet")
        if spec.verify == "marker":
            return _seen(mark, ())
        told = await self._play(spec, spec.playbook, ctx, check=True)
        self._refuse_unreachable(told)
        changed = tuple(
            ResourceChange(f"{result.host}: {result.task}", Action.UPDATE)
            for result in told.results
            if result.state == "changed"
        )
        failed = _failures(told)
        reason = f"in check mode: {failed[0]}" if failed else ""
        return replace(_seen(mark, changed), healthy=not failed, reason=reason)

    async def plan(self, spec: AnsibleSpec, seen: Observation, ctx: ReadContext) -> Change:
        """The hosts it would run on, or the tasks that check mode found pending."""
        if not seen.exists:
            resources = tuple(ResourceChange(name, Action.CREATE) for name in spec.hosts)
            return Change(
                Action.CREATE,
                seen.reason or f"run {spec.playbook}",
                resources,
                seen.fingerprint,
                digest([spec.playbook, list(spec.hosts)]),
            )
        mark = await recall(ctx.kept)
        same = mark is not None and mark.effect == self._origin(spec, ctx)
        if same and seen.healthy and not seen.drifted:
            return Change.none(seen)
        resources = seen.drift or tuple(ResourceChange(name, Action.UPDATE) for name in spec.hosts)
        reason = "drifted" if seen.drifted else (seen.reason or "its settings or files changed")
        return Change(Action.UPDATE, reason, resources, seen.fingerprint, digest([item.address for item in resources]))

    async def apply(self, spec: AnsibleSpec, change: Change, ctx: StageContext) -> Observation:
        """Run the playbook; unreachable hosts are told apart from failing tasks."""
        if await recall(ctx.kept) is None:
            # What an interrupted run leaves behind must be undone by destroy.
            await remember(ctx.kept, Remembered(finished=False))
        told = await self._play(spec, spec.playbook, ctx, check=False)
        self._refuse_failure(spec.playbook, told)
        outputs = _outputs(told.recap.outputs(), _secrets(spec, ctx))
        done = Remembered(True, effect=self._origin(spec, ctx), stamp=stamp_of(ctx), outputs=outputs)
        await remember(ctx.kept, done)
        return _seen(done, ())

    async def destroy(self, spec: AnsibleSpec, ctx: StageContext) -> None:
        """Run the undoing playbook when there is one, and forget."""
        if spec.destroy and await recall(ctx.kept) is not None:
            told = await self._play(spec, spec.destroy, ctx, check=False)
            self._refuse_failure(spec.destroy, told)
        await forget(ctx.kept)

    def _origin(self, spec: AnsibleSpec, ctx: ReadContext) -> str:
        return origin(spec, ctx.hosts, ctx.folder, self.sources(spec))

    async def _play(self, spec: AnsibleSpec, playbook: str, ctx: ReadContext, *, check: bool) -> _Told:
        if not (ctx.folder / playbook).is_file():
            raise SpecError(f"no playbook {playbook!r} in {ctx.folder}", hint="the path is relative to the composition")
        told = _Told()
        async with self._files(spec, ctx) as paths:
            await self._require(spec, paths, ctx)
            command = commands.playbook(spec, paths, str(ctx.folder / playbook), check=check)
            secrets = _secrets(spec, ctx)
            completed = await self._run(command, ctx, told, secrets)
        if not completed.ok and not told.recap.hosts:
            raise _early_failure(completed, told, secrets)
        return told

    async def _run(self, command: Command, ctx: ReadContext, told: _Told, secrets: frozenset[Secret]) -> Completed:
        splitter = LineSplitter()

        def hear(stream: Stream, data: bytes) -> None:
            if stream is Stream.ERR:
                ctx.report.output(stream, data)
                return
            for line in splitter.feed(data):
                _tell(line, told, ctx, secrets)

        place = ctx.places.reach(None)
        if isinstance(ctx, StageContext) and command.effect is Effect.WRITE:
            completed = await ctx.places.reach(None).run(command, hear)
        else:
            completed = await place.query(command, hear)
        for line in splitter.flush():
            _tell(line, told, ctx, secrets)
        return completed

    async def _require(self, spec: AnsibleSpec, paths: commands.Paths, ctx: ReadContext) -> None:
        """Install the requirements, once per content of the file."""
        if spec.requirements is None:
            return
        file = ctx.folder / spec.requirements
        if not file.is_file():
            raise SpecError(f"no requirements file {spec.requirements!r} in {ctx.folder}")
        text = file.read_text()
        stamp = ctx.work / "requirements.stamp"
        if stamp.is_file() and stamp.read_text() == digest(text):
            return
        program = ctx.tools.find("ansible-galaxy")
        if program is None:
            raise ToolMissingError("ansible-galaxy is not installed", hint=_GET_ANSIBLE)
        for kind in ("collection", "role"):
            if f"{kind}s:" in text or (kind == "role" and "collections:" not in text):
                command = commands.galaxy(str(program), kind, str(file), paths, spec)
                completed = await ctx.places.reach(None).query(command, ctx.report.output)
                if not completed.ok:
                    raise ToolFailedError(
                        f"ansible-galaxy could not install the {kind}s of {spec.requirements}",
                        detail=completed.last_words(),
                    )
        stamp.write_text(digest(text))

    @asynccontextmanager
    async def _files(self, spec: AnsibleSpec, ctx: ReadContext) -> AsyncIterator[commands.Paths]:
        """Inventory, variables, keys and pinned host keys, readable by us alone, gone when the run is over."""
        program = ctx.tools.find("ansible-playbook")
        if program is None:
            raise ToolMissingError("ansible-playbook is not installed", hint=_GET_ANSIBLE)
        missing = [name for name in spec.hosts if name not in ctx.hosts]
        if missing:
            raise SpecError(f"unknown hosts: {', '.join(missing)}", hint="declare them under `hosts:`")
        folder = ctx.work / "run"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o700)
        try:
            keys = {}
            for name, host in ctx.hosts.items():
                if host.key is not None:
                    keys[name] = str(_private(folder / f"key-{name}", host.key.reveal().rstrip("\n") + "\n"))
                elif host.key_file:
                    keys[name] = host.key_file
            known = _known_hosts(ctx)
            pinned = _private(folder / "known_hosts", known_hosts_lines(ctx.hosts) + known)
            data = inventory(ctx.hosts, spec.hosts, spec.groups, keys, str(pinned))
            yield commands.Paths(
                program=str(program),
                folder=str(ctx.folder),
                inventory=str(_private(folder / "inventory.json", json.dumps(data))),
                variables=str(_private(folder / "variables.json", json.dumps(revealed(spec.extra_vars)))),
                home=str(ctx.work / "home"),
                collections=str(ctx.work / "collections"),
            )
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @staticmethod
    def _refuse_unreachable(told: _Told) -> None:
        hosts = told.recap.having("unreachable")
        if hosts:
            said = [f"{item.host}: {item.message}" for item in told.results if item.state == "unreachable"]
            raise UnreachableError(
                f"{', '.join(hosts)} did not answer",
                detail="\n".join(said),
                hint="check the address, the port and that sshd runs there; the other hosts were configured",
            )

    def _refuse_failure(self, playbook: str, told: _Told) -> None:
        """Failing tasks first: trying again does not mend those, while an unreachable host may come back."""
        failed = told.recap.having("failures")
        if failed:
            fine = sorted(set(told.recap.hosts) - set(failed) - set(told.recap.having("unreachable")))
            raise ToolFailedError(
                f"{playbook} failed on {', '.join(failed)}" + (f" (fine on {', '.join(fine)})" if fine else ""),
                detail="\n".join(_failures(told)),
            )
        self._refuse_unreachable(told)


def _tell(line: str, told: _Told, ctx: ReadContext, secrets: frozenset[Secret]) -> None:
    said = parse_line(line)
    match said:
        case TaskResult(host, task, state, message):
            task, message = mask_secrets(task, secrets), mask_secrets(message, secrets)
            told.results.append(replace(said, task=task, message=message))
            if state != "skipped":
                ctx.report.line(f"{host}: {task}: {state}" + (f": {message}" if message else ""))
            if state in ("changed", "failed", "unreachable"):
                ctx.report.progress(f"{host}: {task}", "run", "done" if state == "changed" else "failed")
        case Recap():
            told.recap = said
        case Started(name):
            ctx.report.line(f"task: {mask_secrets(name, secrets)}")
        case str():
            told.remarks.append(mask_secrets(said, secrets))
            ctx.report.line(told.remarks[-1])


def _failures(told: _Told) -> list[str]:
    return [
        f"{item.host}: {item.task}: {item.message}" + (f" ({item.where})" if item.where else "")
        for item in told.results
        if item.state == "failed"
    ]


def _early_failure(completed: Completed, told: _Told, secrets: frozenset[Secret]) -> StageError:
    """It ended before any host was asked: syntax, inventory or a missing callback."""
    said = mask_secrets(completed.stderr.decode(errors="replace"), secrets).strip()
    words = said or "\n".join(told.remarks[-15:])
    if "Invalid callback for stdout" in words:
        return ToolMissingError(
            f"this Ansible lacks the callback {commands.CALLBACK}",
            detail=words,
            hint=f"{_GET_ANSIBLE}; ansible-core alone is not enough",
        )
    if completed.exit_code == 0:
        return NotReadyError("the playbook matched no host", detail=words)
    return ToolFailedError(
        f"ansible-playbook ended with {completed.exit_code}", detail="\n".join(words.splitlines()[-15:])
    )


def _known_hosts(ctx: ReadContext) -> str:
    """What the installation trusts besides the user's own file."""
    files = [Path(name) for name in ctx.tools.settings.get("known_hosts", "").split(":") if name]
    return "".join(file.read_text().rstrip("\n") + "\n" for file in files if file.is_file())


def _private(path: Path, text: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def _seen(mark: Remembered, drift: tuple[ResourceChange, ...]) -> Observation:
    state = digest([mark.stamp, [item.address for item in drift]])
    return Observation(True, drifted=bool(drift), fingerprint=state, outputs=mark.outputs, drift=drift)


def _secrets(spec: AnsibleSpec, ctx: ReadContext) -> frozenset[Secret]:
    """Every secret that the playbook is given."""
    hosts = ctx.hosts.values()
    return secrets_in([spec.extra_vars, spec.env, *(host.vars for host in hosts), *(host.key for host in hosts)])


def _outputs(values: Mapping[str, Any], secrets: frozenset[Secret]) -> dict[str, OutputValue]:
    """The statistics as outputs; one that shows a secret is sensitive."""
    return {name: OutputValue(value, _shows(value, secrets)) for name, value in values.items()}


def _shows(value: Any, secrets: frozenset[Secret]) -> bool:
    texts = (leaf if isinstance(leaf, str) else json.dumps(leaf) for leaf in leaves(value))
    return any(holds_secret(text, secrets) for text in texts)
