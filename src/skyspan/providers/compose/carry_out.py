"""What is done with a project by Compose: read, brought up and waited for, stopped, removed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.contracts.transport import Completed
from skyspan.model.change import Action, ResourceChange
from skyspan.model.error import SpecError, StageError, ToolFailedError, ToolMissingError, UnreachableError
from skyspan.model.secret import Secret
from skyspan.model.value import secrets_in
from skyspan.providers.compose import commands
from skyspan.providers.compose.bundle import Bundle
from skyspan.providers.compose.compare import PROJECT, containers_of, strays
from skyspan.providers.compose.project import Project, parse_project
from skyspan.providers.compose.spec import ComposeSpec
from skyspan.providers.dockerengine.commands import Scope, Sight
from skyspan.providers.dockerengine.commands import remove as remove_all
from skyspan.providers.dockerengine.engine import Engine, Where, opened
from skyspan.providers.dockerengine.failure import failed, known
from skyspan.providers.dockerengine.parse import KEY, Look
from skyspan.providers.dockerengine.ready import Looking, until_ready
from skyspan.providers.dockerengine.removing import STATES, discard, remove_stage, to_stop

_GET = "install Compose 2 there (Debian and Ubuntu: apt-get install docker-compose-plugin or docker-compose-v2)"

_SLACK_S = 600.0
"""So long `up` may take beyond the time that containers have to come up: images are fetched and built in it."""


@dataclass(frozen=True, slots=True)
class Task:
    """Settings, and where they are asked about or applied."""

    spec: ComposeSpec
    ctx: ReadContext


def project_name(spec: ComposeSpec, ctx: ReadContext) -> str:
    """The project's name on the daemon."""
    return spec.project or f"{ctx.address.deployment.name}-{ctx.address.name}"


def secrets_of(spec: ComposeSpec) -> frozenset[Secret]:
    """What must not show."""
    return secrets_in(spec.model_dump(mode="python"))


@dataclass(frozen=True, slots=True)
class ApplyTask(Task):
    """The same, while they are applied to what was `seen`; `shape` is that of Compose there."""

    ctx: StageContext
    shape: str
    seen: Look


@dataclass(frozen=True, slots=True)
class Reading:
    """What Compose made of the files: its `text`, where they were for it, their `contents`, and Compose's shape."""

    shape: str
    root: str
    text: str = field(repr=False)
    contents: Mapping[str, str]


async def read(spec: ComposeSpec, files: Bundle, engine: Engine, before: object = None) -> Reading:
    """What Compose makes of the files; raises SpecError with its words for files that it refuses.

    `before` may be an earlier reading, which holds as long as the files are the same."""
    contents = files.contents()
    if isinstance(before, Reading) and before.contents == contents:
        return before
    done = await engine.ctx.places.reach(engine.where.host).query(commands.config(call_of(spec, engine), files))
    if not done.ok:
        raise _failed("reading the Compose files", done, engine, refused=True)
    first, _, text = done.text().partition("\n")
    shape, _, root = first.partition(" ")
    return Reading(shape, root, text, contents)


def understood(reading: Reading, files: Bundle, engine: Engine, task: Task, key: bytes) -> Project:
    """The project that a reading tells of; `key` seals the digests."""
    try:
        return parse_project(reading.text, reading.root, task.spec, files.content, key)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ToolFailedError(
            f"Compose on {engine.where.name} said what is not understood",
            detail=engine.clean(f"{type(error).__name__}: {error}"),
        ) from error


async def up(
    project: Project, found: tuple[ResourceChange, ...], files: Bundle, engine: Engine, task: ApplyTask
) -> None:
    """Make it what its files say; raises StageError, with the logs of the service that failed."""
    spec, ctx = task.spec, task.ctx
    for item in found:
        ctx.report.progress(item.address, item.action.value, "started", item.note)
    if unwanted := strays(project, task.seen):
        # A service that is in the files but not asked for is no orphan to Compose, and would stay.
        await engine.do("removing what is to go", remove_all(engine.words, [one.id for one in unwanted], (), ()))
    # Compose takes a container that ends for one that failed.
    ends = any(one.ends for one in project.services.values())
    override = project.override(str(ctx.address))
    call = call_of(spec, engine, task.shape)
    wait_s = None if ends else spec.ready_within
    # Those alone are built that are not there, and Compose builds all or none of those that are.
    making = {item.address for item in found if item.action in (Action.CREATE, Action.REPLACE)}
    build = any(one.built and f"service {name}" in making for name, one in project.services.items())
    command = commands.up(call, files, override, wait_s, spec.ready_within + _SLACK_S, build=build)
    done = await engine.attempt(command)
    if not done.ok:
        await _refuse(project, done, engine, task)
    if build:
        seen = await engine.look(f"{PROJECT}={project.name}", Sight(scope=Scope.STATES, more=("built",)))
        await discard([name for name in seen.built if ":" not in name], engine, ctx)
    for item in found:
        ctx.report.progress(item.address, item.action.value, "done")


async def wait(project: Project, engine: Engine, task: ApplyTask) -> Look:
    """Wait until every container of it is ready; the look that shows it."""
    first = await look_at(project, engine)
    # `up --wait` has seen them run for a while; those that end were only started.
    ends = any(one.ends for one in project.services.values())
    before = None if ends else first
    look = _looking(project, engine)
    return await until_ready(engine, _wanted(project, first), task.spec.ready_within, look, task.ctx, before, first)


async def look_at(project: Project, engine: Engine, scope: Scope = Scope.OWN) -> Look:
    """What there is of a project."""
    networks = (*project.networks.values(), *project.external)
    own = project.volumes and scope is Scope.OWN
    sight = Sight(images=project.images, networks=networks, scope=scope, more=("volumes",) if own else ())
    return await engine.look(f"{PROJECT}={project.name}", sight)


def _looking(project: Project, engine: Engine) -> Looking:
    return lambda everything: look_at(project, engine, Scope.OWN if everything else Scope.STATES)


async def remove(place: Where, name: str, ctx: StageContext, *, volumes: bool, images: Collection[str]) -> None:
    """Remove a project of the stage in the order of its dependencies, and whatever is left of it, the `images` that it
    built, and the files that went to the host; absent is success."""
    owner = str(ctx.address)
    async with opened(place, ctx, frozenset()) as engine:
        seen = await engine.look(f"{PROJECT}={name}", STATES)
        theirs = [one for one in seen.containers if one.labels.get(PROJECT) == name and one.owner != owner]
        if seen.owned(owner) and not theirs:
            for service in sorted({one.labels.get(KEY, one.name) for one in seen.owned(owner)}):
                ctx.report.progress(f"service {service}", Action.DESTROY.value, "started")
            # Without Compose, or where it fails, what is left is removed one by one.
            await engine.attempt(commands.down(engine.words, name, volumes=volumes))
        if place.host is not None:
            done = await ctx.places.reach(place.host).run(commands.unship(name, owner, everything=volumes))
            if not done.ok:
                raise ToolFailedError(
                    f"the files of {name} could not be removed from {place.name}",
                    detail=engine.clean(done.last_words()),
                )
    await remove_stage(place, ctx, volumes=volumes, images=lambda tag: ":" not in tag or tag in images)


async def halt(place: Where, name: str, ctx: StageContext) -> None:
    """Stop a project of the stage; stopped or absent is success."""
    async with opened(place, ctx, frozenset()) as engine:
        if not to_stop(await engine.look(f"{PROJECT}={name}", STATES), ctx):
            return
        done = await engine.attempt(commands.stop(engine.words, name))
        if not done.ok:
            raise _failed("stopping", done, engine, refused=False)


def call_of(spec: ComposeSpec, engine: Engine, shape: str = "") -> commands.Call:
    """What Compose is asked of."""
    name, owner = project_name(spec, engine.ctx), str(engine.ctx.address)
    return commands.Call(engine.words, name, owner, spec, spec.host is not None, shape)


def _wanted(project: Project, seen: Look) -> dict[str, bool]:
    """The containers that are to be up: those that are there, and a name for every one that is not."""
    found: dict[str, bool] = {}
    for name, service in project.services.items():
        there = containers_of(name, project.name, seen)
        found |= {one.name: service.ends for one in there}
        found |= {f"{project.name}-{name}-{number + 1}": service.ends for number in range(len(there), service.replicas)}
    return found


async def _refuse(project: Project, done: Completed, engine: Engine, task: ApplyTask) -> None:
    """Raise the error of an `up` that failed: what the daemon refused, or the service that did not come up."""
    error = _failed("bringing the project up", done, engine, refused=False)
    plain = known(engine.clean(done.last_words())) is None and done.exit_code in (0, 1) and not done.timed_out
    if not plain or isinstance(error, UnreachableError):
        raise error
    seen = await look_at(project, engine)
    there = {name: ends for name, ends in _wanted(project, seen).items() if seen.container(name) is not None}
    # What is not ready now had its time already, within `up`.
    if there:
        await until_ready(engine, there, 0.0, _looking(project, engine), task.ctx, seen, seen)
    raise error


def _failed(what: str, done: Completed, engine: Engine, *, refused: bool) -> StageError:
    """The error of a script here; with `refused`, an unknown one is the files' fault."""
    where = engine.where.name
    words = engine.clean(done.last_words())
    if done.exit_code == commands.NO_COMPOSE:
        return ToolMissingError(f"there is no Docker Compose on {where}", hint=_GET)
    if done.exit_code == commands.OLD_COMPOSE:
        return ToolMissingError(f"Docker Compose on {where} is {words}: version 2 is needed", hint=_GET)
    if done.exit_code == commands.TAKEN:
        return SpecError(
            f"the project's folder on {where} belongs to stage {words}",
            hint="give another `project`, or destroy that one",
        )
    error = failed(what, where, done, words)
    if refused and isinstance(error, ToolFailedError) and not done.timed_out:
        return SpecError(
            f"Compose refuses the files: {words.splitlines()[-1] if words else 'no reason given'}", detail=words
        )
    return error
