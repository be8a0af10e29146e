"""What a provider may know and do besides its spec: the read context, and the stage context that can also write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from skyspan.contracts.forwarding import ForwarderControl, ForwarderView, NoForwarder
from skyspan.contracts.host import Host
from skyspan.contracts.transport import Reader, Stream, Transport
from skyspan.model.address import StageAddress
from skyspan.model.secret import Secret


class Clock(Protocol):
    """The only source of time."""

    def now(self) -> float:
        """Seconds since the epoch, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class Reporter(Protocol):
    """Where a provider says what is going on. Everything passes the redactor."""

    def line(self, text: str, stream: Stream = Stream.OUT) -> None:
        """A log line of the stage."""
        ...

    def output(self, stream: Stream, data: bytes) -> None:
        """Raw output of a child, at any split points; usable as a transport's `on_output`."""
        ...

    def progress(self, address: str, action: str, state: str, detail: str = "") -> None:
        """A resource moved: `state` is started, done or failed."""
        ...

    def conceal(self, secret: Secret) -> None:
        """From now on mask this value wherever it appears."""
        ...


class Tools(Protocol):
    """Finds external programs on this machine."""

    def find(self, *names: str) -> Path | None:
        """The first of `names` that exists as an executable, absolute; None when none does."""
        ...

    @property
    def settings(self) -> Mapping[str, str]:
        """Tool settings of this installation (`terraform_config`: path of a Terraform CLI configuration file …)."""
        ...


class Variables(Protocol):
    """The environment variables of whoever runs Skyspan, for credentials that a composition names by variable."""

    def get(self, name: str) -> Secret | None:
        """The value of the variable `name`; None where it is not set, or Skyspan's own."""
        ...


class Kept(Protocol):
    """What a stage keeps for itself between runs, sealed at rest: Terraform's state, a tunnel's private keys."""

    async def get(self, name: str) -> bytes | None:
        """What was kept under `name`; raises SealError when it cannot be opened."""
        ...


class KeptWriter(Kept, Protocol):
    """The same, writable: durable when the call returns."""

    async def put(self, name: str, data: bytes) -> None:
        """Keep `data`, replacing what was there."""
        ...

    def put_soon(self, name: str, data: bytes) -> None:
        """Keep `data` no later than, and in order with, what is written next, such as the attempt's end.

        For what only matters together with that end: it spares a durable write. A write that fails is told by the one
        that it went with."""
        ...

    async def remove(self, name: str) -> None:
        """Forget it; absent is success."""
        ...


class Places(Protocol):
    """The read-only way to hosts."""

    def reach(self, host: str | None) -> Reader:
        """The place where `host` is; None is this machine."""
        ...


class WritablePlaces(Places, Protocol):
    """The way to hosts for effects."""

    def reach(self, host: str | None) -> Transport:
        """The place where `host` is; None is this machine."""
        ...


NO_VARIABLES: Variables = MappingProxyType[str, Secret]({})
"""An empty environment."""


@dataclass(frozen=True, slots=True)
class ReadContext:
    """What observe and plan get.

    `folder` is the composition's folder (read only by convention); `work` is the stage's own folder, kept between
    runs, free to be written by reading verbs too, and possibly missing at any time. `attempt` counts from 1;
    `deadline` is a monotonic time or None. `rehearsal` is true inside a rehearsal.
    `attempt_id` names this attempt at the stage for ever, no other has it; empty where there is no run. Files in `work`
    whose names end with `.` and that id are the attempt's own: they are removed once its outcome is recorded.
    `variables` are read only by the names that the settings give, and only when they are needed.
    `forwarder` is the stage's own process for SSH tunnels, which runs or does not.
    `resumed` is true when another engine began this attempt and was cut off: what it did may have been done already.
    """

    address: StageAddress
    folder: Path
    work: Path
    hosts: Mapping[str, Host]
    places: Places
    report: Reporter
    tools: Tools
    clock: Clock
    kept: Kept
    attempt: int = 1
    deadline: float | None = None
    rehearsal: bool = False
    attempt_id: str = ""
    resumed: bool = False
    variables: Variables = field(default_factory=lambda: NO_VARIABLES)
    forwarder: ForwarderView = field(default_factory=NoForwarder)


@dataclass(frozen=True, slots=True)
class StageContext(ReadContext):
    """What apply, destroy, stop and start get: the same, able to write."""

    places: WritablePlaces
    kept: KeptWriter
    forwarder: ForwarderControl = field(default_factory=NoForwarder)
    epoch: int = field(default=0)
