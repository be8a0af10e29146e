"""One verb's use of the tool: a work tree that is ready, private files for this verb alone, commands run and heard."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from skyspan.contracts.context import ReadContext
from skyspan.contracts.transport import Command, Completed, Effect, Stream, Transport
from skyspan.model.error import Retry, SpecError, StageError, ToolFailedError
from skyspan.model.secret import Secret
from skyspan.model.value import revealed
from skyspan.providers.masking import mask_secrets
from skyspan.providers.terraform.backend_lock import BackendLock, is_left_by, said_lock, told_lock
from skyspan.providers.terraform.commands import Invocation, quiet_environment
from skyspan.providers.terraform.configuration import Configuration
from skyspan.providers.terraform.endpoint.server import Endpoint, serving
from skyspan.providers.terraform.failure import Sources, failure, lost, needs_init
from skyspan.providers.terraform.journal import Creation, Journal
from skyspan.providers.terraform.listen import Listener
from skyspan.providers.terraform.lookup import ignoring_environment
from skyspan.providers.terraform.override import compose_override
from skyspan.providers.terraform.parse import PROTOCOL_MAJOR, Diagnosis, Moved, understood
from skyspan.providers.terraform.recorder import Recorder
from skyspan.providers.terraform.rescue import creations_of
from skyspan.providers.terraform.spec import TerraformSpec
from skyspan.providers.terraform.state import (
    Keeper,
    State,
    backend_override,
    decide_keeper,
    look,
    parse_state,
)
from skyspan.providers.terraform.tool import Tool, empty_config, identify
from skyspan.providers.terraform.worktree import WorkTree, held, install_digest, write_private

KEPT_LOCK_FILE = "lock-file"


@dataclass(frozen=True, slots=True)
class SavedPlan:
    """A plan file's bytes (secrets in clear, so in memory only) and the configuration that it was made of.

    `creations` is what it will create, as far as each can be recognised by it.
    """

    data: bytes = field(repr=False)
    configuration: str
    creations: Mapping[str, Creation] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Planned:
    """How a plan ended: whether there is anything to do, and what the tool said."""

    changes: bool
    heard: Listener
    saved: SavedPlan | None = None
    shown: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Session:
    """The tool at work on one stage, for the time of one verb.

    `left` is the journal of an earlier attempt that is known to be dead: a lock that it left in the configuration's own
    backend is broken when a command meets it.
    """

    ctx: ReadContext
    tool: Tool
    configuration: Configuration
    keeper: Keeper
    tree: WorkTree
    scratch: Path
    invocation: Invocation
    sources: Sources
    secrets: frozenset[Secret] = frozenset()
    endpoint: Endpoint = field(default_factory=Endpoint)
    recorder: Recorder | None = None
    left: Journal = field(default_factory=Journal)

    @property
    def left_behind(self) -> tuple[Path, ...]:
        """Where a state may lie in clear after trouble."""
        return self.tree.left_behind(self.configuration.root)

    async def state(self) -> State | None:
        """The state as it is kept, or as the configuration's own backend has it."""
        if self.keeper is Keeper.SKYSPAN:
            return await look(self.ctx, self.left_behind)
        text = await self._collect(self.invocation.pull(), "state pull")
        return parse_state(text) if text.strip() else None

    async def plan(self, state: State | None, *, refresh: bool, save: bool, targets: Sequence[str] = ()) -> Planned:
        """Plan against `state`. Saving also shows the plan when it changes anything. Raises StageError."""
        out = self.scratch / "plan" if save else None
        if self.recorder is None:  # A writer's commands see what stands, not what somebody looked up.
            self.endpoint.show(state.data if state else None)
        command = self.invocation.plan(refresh=refresh, out=out, targets=targets)
        heard = await self.run("plan", command, good=(0, 2))
        if out is None or heard.exit_code == 0:
            return Planned(heard.exit_code == 2, heard.listener)
        out.chmod(0o600)
        shown = json.loads(await self._collect(self.invocation.show(out), "show"))
        saved = SavedPlan(out.read_bytes(), self.configuration.digest, creations_of(shown))
        out.unlink()
        return Planned(True, heard.listener, saved, shown)

    async def apply(self, saved: SavedPlan) -> Heard:
        """Carry out a saved plan; a failure is a result here."""
        plan = self.scratch / "plan"
        write_private(plan, saved.data)
        try:
            return await self.run("apply", self.invocation.apply(plan), good=None)
        finally:
            plan.unlink(missing_ok=True)

    async def destroy(self) -> None:
        """Destroy everything in the state. Raises StageError."""
        await self.run("destroy", self.invocation.destroy())

    def settled(self) -> None:
        """There was nothing to do: everything that is wanted is in the state."""
        if self.recorder:
            self.recorder.exit_code = 0

    async def push(self, state: Path) -> Completed:
        """Give a state to the configuration's own backend; a failure is a result here."""
        place = cast(Transport, self.ctx.places.reach(None))
        pushed = await place.run(self.invocation.push(state))
        if not pushed.ok and await self._freed(pushed.last_words()):
            pushed = await place.run(self.invocation.push(state))
        return pushed

    async def run(self, verb: str, command: Command, *, good: tuple[int, ...] | None = (0,)) -> Heard:
        """Run a command of the `-json` kind and listen; raises StageError unless it ends as `good` (None: however)."""
        heard = await self._heard(command)
        if command.effect is Effect.WRITE and heard.exit_code > 0:
            said = "\n".join(item.detail for item in heard.listener.diagnoses if item.severity == "error")
            if await self._freed(said):
                heard = await self._heard(command)
        if good is not None and (heard.completed.timed_out or heard.exit_code not in good):
            raise self.failed(verb, heard)
        return heard

    async def _freed(self, said: str) -> bool:
        """Break the lock of the configuration's own backend that a command met, if a dead attempt of ours left it."""
        lock = said_lock(said) if self.keeper is Keeper.BACKEND else None
        if lock is None or not is_left_by(lock, self.left):
            return False
        freed = await cast(Transport, self.ctx.places.reach(None)).run(self.invocation.free(lock.id))
        told = "broke" if freed.ok else "could not break"
        self.ctx.report.line(f"{told} the lock that an interrupted run left in the backend: {lock}", Stream.ERR)
        return freed.ok

    async def _heard(self, command: Command) -> Heard:
        note = self.recorder.note if self.recorder else _unheard
        listener = Listener(self.ctx.report, self.sources, self.secrets, note)
        place = self.ctx.places.reach(None)
        if command.effect is Effect.WRITE:
            completed = await cast(Transport, place).run(command, listener.hear)
        else:
            completed = await place.query(command, listener.hear)
        listener.finish()
        self.endpoint.raise_failure()
        if self.recorder and command.effect is Effect.WRITE:
            self.recorder.exit_code = completed.exit_code
            self.recorder.dumped = listener.dumped or self.recorder.dumped
        if listener.protocol and not understood(listener.protocol):
            msg = f"{self.tool.name} {self.tool.version} speaks version {listener.protocol} of its JSON protocol"
            hint = f"this Skyspan reads version {PROTOCOL_MAJOR}: use an older {self.tool.name}"
            raise ToolFailedError(msg, hint=hint)
        return Heard(completed, listener)

    def failed(self, verb: str, heard: Heard) -> StageError:
        """The error of a command that failed."""
        error = self._failure(verb, heard.completed, heard.listener.diagnoses)
        if verb == "apply" and heard.exit_code < 0:
            standing = self.endpoint.ledger.state
            known = frozenset(parse_state(standing.data).known) if standing else frozenset()
            return lost(error, known, tuple(heard.listener.made.values()), tuple(heard.listener.begun.values()))
        if verb != "init" and needs_init(heard.listener.diagnoses):
            self.tree.forget_installed()
            error.retry = Retry.NOW
        return error

    async def _collect(self, command: Command, verb: str) -> bytes:
        """Run a command whose output is one document with secrets in clear; it goes to no log."""
        parts: list[bytes] = []

        def take(stream: Stream, data: bytes) -> None:
            if stream is Stream.OUT:
                parts.append(data)

        completed = await self.ctx.places.reach(None).query(command, take)
        if not completed.ok:
            raise self._failure(verb, replace(completed, stdout=b""), ())
        return b"".join(parts)

    def _failure(self, verb: str, completed: Completed, diagnoses: Sequence[Diagnosis]) -> StageError:
        met = self.endpoint.obstacle
        lock: BackendLock | None = told_lock(met.info) if met else None
        error = failure(self.tool.name, verb, completed, diagnoses, self.sources, lock)
        summary, detail = (mask_secrets(text, self.secrets) for text in (error.summary, error.detail))
        return type(error)(summary, detail=detail, hint=error.hint, retry=error.retry)


@dataclass(frozen=True, slots=True)
class Heard:
    """A command that has ended, and what it said."""

    completed: Completed
    listener: Listener

    @property
    def exit_code(self) -> int:
        """Its exit status."""
        return self.completed.exit_code


@contextlib.asynccontextmanager
async def open_session(spec: TerraformSpec, ctx: ReadContext, configuration: Configuration) -> AsyncIterator[Session]:
    """A session whose work tree is that configuration, initialised; its private files vanish with it.

    Several reading verbs may share a tree with one writing verb; whoever must change the tree has it alone.
    """
    tool = await identify(spec.tool, spec.version, ctx)
    tree = WorkTree(ctx.work)
    keeper = decide_keeper(spec, configuration.facts, rehearsal=ctx.rehearsal)
    override = _override(spec, ctx, configuration, keeper)
    async with contextlib.AsyncExitStack() as stack:
        scratch = stack.enter_context(tree.scratch())
        endpoint = await stack.enter_async_context(serving()) if keeper is Keeper.SKYSPAN else Endpoint()
        session = _session(spec, ctx, configuration, _Rooms(tool, keeper, tree, scratch, endpoint))
        setting_up = _SettingUp(session, override)
        lock, what = tree.work / ".lock", f"the work tree of {ctx.address}"
        while True:
            async with held(lock, ctx.clock, exclusive=False, what=what):
                if setting_up.done():
                    yield session
                    return
            async with held(lock, ctx.clock, exclusive=True, what=what):
                if not setting_up.done():
                    await setting_up.perform()


@dataclass(frozen=True, slots=True)
class _Rooms:
    """What a session works with and in."""

    tool: Tool
    keeper: Keeper
    tree: WorkTree
    scratch: Path
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class _SettingUp:
    """Makes the work tree ready: the files, then `init` where it is needed."""

    session: Session
    override: Mapping[str, Any]

    def done(self) -> bool:
        tree = self.session.tree
        return tree.holds(self.session.configuration, self.override) and tree.installed(self._wanted())

    async def perform(self) -> None:
        session, tree, configuration = self.session, self.session.tree, self.session.configuration
        tree.write(configuration, self.override)
        if tree.installed(self._wanted()):
            return
        tree.put_lock_file(configuration, await session.ctx.kept.get(KEPT_LOCK_FILE))
        async with self._alone_with_the_cache():
            cloud = session.keeper is Keeper.BACKEND and configuration.facts.backend == "cloud"
            command = session.invocation.init(reconfigure=not cloud)
            await session.run("init", command)
        tree.note_installed(self._wanted())

    def _alone_with_the_cache(self) -> contextlib.AbstractAsyncContextManager[None]:
        """A plugin cache is not safe for several inits at a time (Terraform); without one nothing is shared."""
        environment = self.session.invocation.environment
        config = Path(str(environment["TF_CLI_CONFIG_FILE"]))
        given = environment["TF_PLUGIN_CACHE_DIR"]
        if isinstance(given, str) and given:
            path = Path(given) / ".skyspan-lock"
        elif "plugin_cache_dir" in config.read_text(errors="replace"):
            path = config  # It may say `$HOME/…`; whoever shares the cache shares this file.
        else:
            return contextlib.nullcontext()
        return held(path, self.session.ctx.clock, exclusive=True, what="the plugin cache")

    def _wanted(self) -> str:
        session = self.session
        tool = f"{session.tool.path} {session.tool.version}"
        config = str(session.invocation.environment["TF_CLI_CONFIG_FILE"])
        return install_digest(session.configuration, self.override, tool, config)


def _session(spec: TerraformSpec, ctx: ReadContext, configuration: Configuration, rooms: _Rooms) -> Session:
    config = ctx.tools.settings.get("terraform_config")
    if config and not Path(config).is_file():
        msg = f"the Terraform CLI configuration {config} does not exist"
        raise SpecError(msg, hint="correct or remove the setting `terraform_config`")
    tree, scratch = rooms.tree, rooms.scratch
    variables = None
    if spec.variables:
        variables = scratch / "variables.tfvars.json"
        write_private(variables, json.dumps(revealed(spec.variables), indent=1, ensure_ascii=False).encode())
    environment = {
        **quiet_environment(Path(config) if config else empty_config(ctx.work), tree.data),
        **spec.env,
        **ignoring_environment(spec.env),
        **(rooms.endpoint.environment(locking=False) if rooms.keeper is Keeper.SKYSPAN else {}),
    }
    folder = tree.folder(configuration)
    invocation = Invocation(rooms.tool.path, folder, environment, variables=variables, parallelism=spec.parallelism)
    sources = Sources(configuration.root, str(scratch))
    return Session(
        ctx,
        rooms.tool,
        configuration,
        rooms.keeper,
        tree,
        scratch,
        invocation,
        sources,
        spec.secrets,
        rooms.endpoint,
    )


def _override(spec: TerraformSpec, ctx: ReadContext, configuration: Configuration, keeper: Keeper) -> dict[str, Any]:
    name = ctx.tools.settings.get("terraform_override")
    given: Mapping[str, Any] = {}
    if name:
        try:
            given = json.loads(Path(name).read_bytes())
        except (OSError, ValueError) as error:
            msg = f"the override file {name} cannot be read"
            raise SpecError(msg, detail=str(error), hint="correct the setting `terraform_override`") from error
    facts = configuration.facts
    own = compose_override(revealed(spec.override), given, facts)
    return compose_override(own, backend_override(keeper), facts)


def _unheard(_: Moved) -> None:
    """Nobody journals a command that only reads."""
