"""A provider whose real world is a dictionary, so that everything above a provider can be tested without a tool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import Field

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.contracts.provider import Provider, Spec
from skyspan.model.change import Action, Change, Observation, ResourceChange
from skyspan.model.error import SpecError
from skyspan.model.secret import Secret
from skyspan.model.value import OutputValue, Value, digest


class FakeSpec(Spec):
    """Settings of a fake thing."""

    value: Value = None
    """What it is; may be changed in place."""
    kept: Value = None
    """What it is made of; a change replaces it."""
    outputs: dict[str, Value] = Field(default_factory=dict)
    """What it gives, beside `value` and `serial`."""
    sensitive: tuple[str, ...] = ()
    """Which outputs the thing itself calls sensitive."""
    host: str | None = None
    """Where it is."""
    hosts: tuple[str, ...] = ()
    """More places."""
    token: Secret | None = None
    """A secret it is given."""


@dataclass(frozen=True, slots=True)
class Thing:
    """One thing in the world. `serial` tells one from another that replaced it."""

    serial: int
    value: Value = None
    kept: Value = None
    outputs: Mapping[str, Value] = field(default_factory=dict)
    healthy: bool = True
    drifted: bool = False
    stopped: bool = False


@dataclass(slots=True)
class FakeWorld:
    """The real world: things by stage name. Tests may change it behind everybody's back.

    `faults` holds, by (verb, stage), what the next calls raise, in turn; `after` the same, but after the deed was
    done. `unhealthy_for` says how many looks a new thing of a stage takes to become healthy. `calls` tells every call.
    """

    things: dict[str, Thing] = field(default_factory=dict)
    faults: dict[tuple[str, str], list[Exception]] = field(default_factory=dict)
    after: dict[tuple[str, str], list[Exception]] = field(default_factory=dict)
    unhealthy_for: dict[str, int] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    made: int = 0

    def verbs(self, stage: str) -> list[str]:
        """What was done to a stage, in order."""
        return [verb for verb, name in self.calls if name == stage]

    def change(self, stage: str, **changes: Any) -> None:
        """Change a thing behind everybody's back."""
        self.things[stage] = replace(self.things[stage], **changes)

    def begin(self, verb: str, stage: str) -> None:
        """A call begins; raises the fault that is planned for it."""
        self.calls.append((verb, stage))
        _raise_next(self.faults, verb, stage)

    def end(self, verb: str, stage: str) -> None:
        """A call has done what it does; raises the fault that is planned for after it."""
        _raise_next(self.after, verb, stage)


def _raise_next(faults: dict[tuple[str, str], list[Exception]], verb: str, stage: str) -> None:
    if planned := faults.get((verb, stage)):
        raise planned.pop(0)


class FakeProvider:
    """Keeps to every rule of a provider, over a FakeWorld. Cannot be stopped."""

    spec = FakeSpec

    def __init__(self, world: FakeWorld, kind: str = "fake") -> None:
        self.world, self.kind = world, kind

    async def observe(self, spec: FakeSpec, ctx: ReadContext) -> Observation:
        self.world.begin("observe", ctx.address.name)
        return self._seen(spec, ctx.address.name)

    async def plan(self, spec: FakeSpec, seen: Observation, ctx: ReadContext) -> Change:
        stage = ctx.address.name
        self.world.begin("plan", stage)
        thing = self.world.things.get(stage)
        if thing is None:
            return _change(Action.CREATE, stage, spec, seen, "it is absent")
        if thing.kept != spec.kept:
            return _change(Action.REPLACE, stage, spec, seen, "it is made of something else")
        if thing.value != spec.value or thing.outputs != spec.outputs or thing.drifted or thing.stopped:
            reason = "it is stopped" if thing.stopped else "it is something else"
            return replace(_change(Action.UPDATE, stage, spec, seen, reason), outputs=_serial(thing))
        return Change.none(seen)

    async def apply(self, spec: FakeSpec, change: Change, ctx: StageContext) -> Observation:
        stage, world = ctx.address.name, self.world
        world.begin("apply", stage)
        thing = world.things.get(stage)
        if thing is None or thing.kept != spec.kept:
            world.made += 1
            thing = Thing(world.made)
        healthy = world.unhealthy_for.get(stage, 0) == 0
        world.things[stage] = Thing(thing.serial, spec.value, spec.kept, dict(spec.outputs), healthy)
        ctx.report.progress(f"thing.{stage}", "apply", "done")
        world.end("apply", stage)
        return self._seen(spec, stage)

    async def destroy(self, spec: FakeSpec, ctx: StageContext) -> None:
        self.world.begin("destroy", ctx.address.name)
        self.world.things.pop(ctx.address.name, None)
        self.world.end("destroy", ctx.address.name)

    def _seen(self, spec: FakeSpec, stage: str) -> Observation:
        thing = self.world.things.get(stage)
        if thing is None:
            return Observation.absent()
        waits = self.world.unhealthy_for.get(stage, 0)
        if not thing.healthy and waits:
            self.world.unhealthy_for[stage] = waits - 1
            if waits == 1:
                self.world.change(stage, healthy=True)
        outputs = {name: OutputValue(value, name in spec.sensitive) for name, value in thing.outputs.items()}
        outputs |= {"value": OutputValue(thing.value, "value" in spec.sensitive), **_serial(thing)}
        return Observation(
            exists=True,
            healthy=thing.healthy and not thing.stopped,
            drifted=thing.drifted,
            fingerprint=digest([thing.serial, thing.value, thing.kept, thing.drifted, thing.stopped]),
            reason="it is stopped" if thing.stopped else "" if thing.healthy else "it warms up",
            outputs=outputs,
            drift=(ResourceChange(f"thing.{stage}", Action.UPDATE),) if thing.drifted else (),
        )


class StoppableFakeProvider(FakeProvider):
    """The same, able to be stopped."""

    async def stop(self, spec: FakeSpec, ctx: StageContext) -> None:
        """Suspend the thing."""
        stage = ctx.address.name
        self.world.begin("stop", stage)
        if stage in self.world.things:
            self.world.change(stage, stopped=True)
        self.world.end("stop", stage)


class StartableFakeProvider(StoppableFakeProvider):
    """The same, able to be started by more than apply."""

    async def start(self, spec: FakeSpec, ctx: StageContext) -> Observation:
        """Bring the thing back."""
        stage = ctx.address.name
        self.world.begin("start", stage)
        if stage in self.world.things:
            self.world.change(stage, stopped=False)
        self.world.end("start", stage)
        return self._seen(spec, stage)


class FakeProviders:
    """A registry of given providers; implements `contracts.provider.Providers`."""

    def __init__(self, *providers: Provider[Any]) -> None:
        self._providers = {provider.kind: provider for provider in providers}

    def get(self, kind: str) -> Provider[Any]:
        if kind not in self._providers:
            raise SpecError(f"there is no provider {kind!r}")
        return self._providers[kind]

    def kinds(self) -> tuple[str, ...]:
        return tuple(sorted(self._providers))


def _serial(thing: Thing) -> dict[str, OutputValue]:
    return {"serial": OutputValue(thing.serial)}


def _change(action: Action, stage: str, spec: FakeSpec, seen: Observation, reason: str) -> Change:
    return Change(
        action,
        reason,
        resources=(ResourceChange(f"thing.{stage}", action),),
        based_on=seen.fingerprint,
        meaning=digest([action.value, spec.value, spec.kept, spec.outputs]),
    )
