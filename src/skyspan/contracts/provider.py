"""The provider interface: four verbs and a name, and optional abilities as protocols of their own.

Rules, each checked by `testing.conformance.provider`:

- observe and plan write nothing outside the stage's work folder;
- apply converges: safe after any interruption, and a second apply finds nothing to do;
- plan settles: right after apply it says `none`;
- destroy takes the spec recorded at apply; absent is success; twice succeeds;
- outputs are JSON values; no secret appears in a report, an error, a change or a command's display;
- cancellation ends within the ladder of the running command;
- time, randomness and environment come only from the context.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.model.change import Change, Observation
from skyspan.model.composition import Model
from skyspan.model.diagnostic import Diagnostic

RESERVED_SETTINGS = ("connection", "template", "uses", "with")
"""What no provider's settings are called: in a stage's `with:` and in `connections:` these words are Skyspan's own."""


class Spec(Model):
    """Base of every provider's spec: frozen, unknown keys refused, every field documented by its docstring."""


S = TypeVar("S", bound=Spec)


class Provider(Protocol[S]):
    """Code that drives one tool or protocol. Stateless: one instance serves every stage of its kind at once."""

    @property
    def kind(self) -> str:
        """The name that `uses:` gives."""
        ...

    @property
    def spec(self) -> type[S]:
        """The model of its settings."""
        ...

    async def observe(self, spec: S, ctx: ReadContext) -> Observation:
        """See what is really there. Raises StageError when it cannot be seen (not when it is absent)."""
        ...

    async def plan(self, spec: S, seen: Observation, ctx: ReadContext) -> Change:
        """What apply would do, given what was seen."""
        ...

    async def apply(self, spec: S, change: Change, ctx: StageContext) -> Observation:
        """Make it so and return what is there then. Raises StageError."""
        ...

    async def destroy(self, spec: S, ctx: StageContext) -> None:
        """Remove everything that apply made. Raises StageError."""
        ...


@runtime_checkable
class SupportsPreflight(Protocol):
    """Can say before a run what would stop it."""

    async def preflight(self, settings: Mapping[str, Any], ctx: ReadContext) -> tuple[Diagnostic, ...]:
        """Missing tools, folders, permissions. `settings` holds only what is known already of `with:`, unvalidated.

        Positions may be empty: the caller puts them in."""
        ...


@runtime_checkable
class SupportsSources(Protocol):
    """Reads files of the composition's folder, whose content is part of what is applied."""

    def sources(self, spec: Any) -> tuple[str, ...]:
        """Files and folders, relative to the composition's folder (pure); they go into the stage's fingerprint."""
        ...


@runtime_checkable
class SupportsStop(Protocol):
    """Can be suspended."""

    async def stop(self, spec: Any, ctx: StageContext) -> None:
        """Suspend it, keeping what is needed to start it again; stopped or absent is success."""
        ...


@runtime_checkable
class SupportsKeep(Protocol):
    """Can be suspended in general, but not every stage of it can."""

    def kept_because(self, spec: Any) -> str:
        """Why this stage goes on running through `stop`; empty when it is stopped (pure)."""
        ...


@runtime_checkable
class SupportsStart(Protocol):
    """Can be brought back by more than `apply`; without it, `skyspan start` converges as `up` does."""

    async def start(self, spec: Any, ctx: StageContext) -> Observation:
        """Bring it back; running is success."""
        ...


@runtime_checkable
class SupportsDoubt(Protocol):
    """Cannot always see whether an effect took place."""

    async def in_doubt(self, spec: Any, effect: str, ctx: ReadContext, *, untouched: bool) -> str:
        """Why nobody can tell whether the effect (apply or start) of an attempt that was cut off took place; empty when
        observing tells. `untouched` is true when it is certain that no command was started on this machine."""
        ...


@runtime_checkable
class SupportsCarryOn(Protocol):
    """An apply or start that another engine began runs the same commands again, so that each finds its result."""

    def carries_on(self, spec: Any) -> bool:
        """Whether that is so for this stage (pure). Otherwise its commands are outlasted, and it looks anew."""
        ...


@runtime_checkable
class SupportsLinks(Protocol):
    """Its stages are links between hosts."""

    def describe_link(self, spec: Any) -> Mapping[str, Any]:
        """The ends, prefixes and allowed ports, as JSON (pure), for `skyspan links`."""
        ...


class Providers(Protocol):
    """The registry as others see it."""

    def get(self, kind: str) -> Provider[Any]:
        """The provider of that name; raises SpecError naming the nearest known one."""
        ...

    def kinds(self) -> tuple[str, ...]:
        """Every known name, sorted."""
        ...
