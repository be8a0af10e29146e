"""The world a provider is tested in: temporary folders, remembered data, a recording reporter, places under watch."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from skyspan.contracts.context import Clock, ReadContext, StageContext
from skyspan.contracts.forwarding import ForwarderControl, NoForwarder
from skyspan.contracts.host import Host
from skyspan.contracts.transport import Command, Completed, Connection, Effect, OnOutput, Stream, Transport
from skyspan.model.address import DeploymentAddress, StageAddress
from skyspan.model.error import SpecError, UnreachableError
from skyspan.model.secret import Secret
from skyspan.testing.gate import Gate
from skyspan.testing.gated_forwarder import GatedForwarder

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

Transports: TypeAlias = Mapping[Any, Transport]
"""Transports by host name, and None for this machine. (A mapping's key type is invariant, hence Any.)"""


class MemoryKept:
    """What a stage keeps, in memory; `puts` counts the writes."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.puts = 0

    async def get(self, name: str) -> bytes | None:
        """What was kept under `name`."""
        return self.data.get(name)

    async def put(self, name: str, data: bytes) -> None:
        """Keep it."""
        self.puts += 1
        self.data[name] = data

    def put_soon(self, name: str, data: bytes) -> None:
        """Keep it."""
        self.puts += 1
        self.data[name] = data

    async def remove(self, name: str) -> None:
        """Forget it."""
        self.data.pop(name, None)


class _ReadOnlyKept:
    def __init__(self, kept: MemoryKept) -> None:
        self.get = kept.get


class _GatedKept:
    def __init__(self, kept: MemoryKept, gate: Gate) -> None:
        self.get = kept.get
        self._kept = kept
        self._gate = gate

    async def put(self, name: str, data: bytes) -> None:
        await self._gate.effect(lambda: self._kept.put(name, data))

    def put_soon(self, name: str, data: bytes) -> None:
        self._kept.put_soon(name, data)

    async def remove(self, name: str) -> None:
        await self._gate.effect(lambda: self._kept.remove(name))


class RecordingReporter:
    """Keeps everything that is reported. `said` is what a provider put in words itself, not its children's output."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.raw: dict[Stream, bytearray] = {stream: bytearray() for stream in Stream}
        self.progressed: list[tuple[str, str, str, str]] = []
        self.concealed: list[Secret] = []

    def line(self, text: str, stream: Stream = Stream.OUT) -> None:
        """A log line of the stage."""
        self.lines.append(text)

    def output(self, stream: Stream, data: bytes) -> None:
        """Raw output of a child."""
        self.raw[stream] += data

    def progress(self, address: str, action: str, state: str, detail: str = "") -> None:
        """A resource moved."""
        self.progressed.append((address, action, state, detail))

    def conceal(self, secret: Secret) -> None:
        """Mask it from now on."""
        self.concealed.append(secret)

    def said(self) -> str:
        """All lines and progress, as one text."""
        return "\n".join([*self.lines, *(" ".join(parts) for parts in self.progressed)])


class FoundTools:
    """Finds external programs in the usual places, or in `path`."""

    def __init__(self, path: str = _PATH, settings: Mapping[str, str] = MappingProxyType({})) -> None:
        self._path = path
        self._settings = settings

    def find(self, *names: str) -> Path | None:
        """The first of `names` that exists as an executable."""
        found = (shutil.which(name, path=self._path) for name in names)
        return next((Path(path) for path in found if path is not None), None)

    @property
    def settings(self) -> Mapping[str, str]:
        """Tool settings of this installation."""
        return self._settings


class RealClock:
    """The system's time."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


class SteppingClock:
    """A time that only passes when somebody sleeps; `slept` lists the pauses."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._now = start
        self.slept: list[float] = []

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._now

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Let others run, and let the time pass."""
        self.slept.append(seconds)
        self._now += seconds
        await asyncio.sleep(0)


class ScriptedTransport:
    """A place that answers from a script. `answer` is asked for every command, `connect` for every connection.

    Without `connect` every connection is refused. `commands` lists what was asked, queries too.
    """

    def __init__(
        self,
        answer: Callable[[Command], Completed] = lambda command: Completed(0),
        connect: Callable[[str, int], Connection] | None = None,
        name: str = "here",
    ) -> None:
        self.name = name
        self.commands: list[Command] = []
        self._answer = answer
        self._connect = connect

    async def query(self, command: Command, on_output: OnOutput | None = None) -> Completed:
        """Answer a command that reads; another raises PermissionError."""
        if command.effect is not Effect.READ:
            msg = f"{command.display()} writes"
            raise PermissionError(msg)
        return await self.run(command, on_output)

    async def run(self, command: Command, on_output: OnOutput | None = None) -> Completed:
        """Answer any command."""
        self.commands.append(command)
        done = self._answer(command)
        if on_output is not None:
            on_output(Stream.OUT, done.stdout)
            on_output(Stream.ERR, done.stderr)
        return done

    async def dial(self, address: str, port: int, timeout_s: float) -> Connection:
        """A scripted connection."""
        if self._connect is None:
            raise UnreachableError(f"{address}:{port}: refused")
        return self._connect(address, port)

    async def close(self) -> None:
        """Nothing to give up."""


class _WatchedReader:
    """The reading half of a place: refuses commands that write, and has no way to run them."""

    def __init__(self, inner: Transport, commands: list[Command]) -> None:
        self._inner = inner
        self._commands = commands

    @property
    def name(self) -> str:
        return self._inner.name

    async def query(self, command: Command, on_output: OnOutput | None = None) -> Completed:
        self._commands.append(command)
        if command.effect is not Effect.READ:
            msg = f"{command.display()} writes, and this context only reads"
            raise PermissionError(msg)
        return await self._inner.query(command, on_output)

    async def dial(self, address: str, port: int, timeout_s: float) -> Connection:
        return await self._inner.dial(address, port, timeout_s)


class _WatchedTransport(_WatchedReader):
    def __init__(self, inner: Transport, commands: list[Command], gate: Gate) -> None:
        super().__init__(inner, commands)
        self._gate = gate

    async def run(self, command: Command, on_output: OnOutput | None = None) -> Completed:
        self._commands.append(command)
        return await self._gate.command(lambda: self._inner.run(command, on_output), on_output)

    async def close(self) -> None:
        """The transport belongs to the test."""


@dataclass(frozen=True, slots=True)
class _ReadPlaces:
    transports: Transports
    commands: list[Command]

    def reach(self, host: str | None) -> _WatchedReader:
        return _WatchedReader(_place(self.transports, host), self.commands)


@dataclass(frozen=True, slots=True)
class _WritePlaces:
    transports: Transports
    commands: list[Command]
    gate: Gate

    def reach(self, host: str | None) -> _WatchedTransport:
        return _WatchedTransport(_place(self.transports, host), self.commands, self.gate)


def _place(transports: Transports, host: str | None) -> Transport:
    if host not in transports:
        raise SpecError(f"the composition has no host {host!r}")
    return transports[host]


@dataclass
class ProviderWorld:
    """One stage's surroundings over any number of attempts.

    `root` is a folder of the test; `transports` are its places, None being this machine. What is kept, reported and
    commanded stays readable in `kept`, `report` and `commands`.
    """

    root: Path
    transports: Transports
    hosts: Mapping[str, Host] = field(default_factory=dict)
    clock: Clock = field(default_factory=RealClock)
    tools: FoundTools = field(default_factory=FoundTools)
    address: StageAddress = field(default=StageAddress(DeploymentAddress("default", "proof"), "stage"))
    kept: MemoryKept = field(default_factory=MemoryKept)
    report: RecordingReporter = field(default_factory=RecordingReporter)
    commands: list[Command] = field(default_factory=list)
    variables: Mapping[str, Secret] = field(default_factory=dict)
    forwarder: ForwarderControl = field(default_factory=NoForwarder)
    attempts: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def folder(self) -> Path:
        """The composition's folder."""
        return self.root / "composition"

    @property
    def work(self) -> Path:
        """The stage's own folder; nobody made it."""
        return self.root / "work"

    def besides(self) -> object:
        """What changes without passing a gate: files of the stage and of the composition, and what is kept soon."""
        found: dict[Path, tuple[int, int, int]] = {}
        for file in itertools.chain(self.work.rglob("*"), self.folder.rglob("*")):
            with contextlib.suppress(FileNotFoundError):  # what a process makes and removes by itself
                stat = file.lstat()
                found[file] = (stat.st_mode, stat.st_size, stat.st_mtime_ns)
        return found, self.kept.puts

    def reading(self, deadline: float | None = None) -> ReadContext:
        """What observe and plan get: commands that write are refused, and nothing can be kept."""
        return ReadContext(
            address=self.address,
            folder=self.folder,
            work=self.work,
            hosts=self.hosts,
            places=_ReadPlaces(self.transports, self.commands),
            report=self.report,
            tools=self.tools,
            clock=self.clock,
            kept=_ReadOnlyKept(self.kept),
            attempt=max(self.attempts, 1),
            deadline=deadline,
            variables=self.variables,
            forwarder=self.forwarder,
        )

    def writing(self, gate: Gate | None = None, deadline: float | None = None) -> StageContext:
        """What apply and destroy get: a new attempt whose effects pass `gate`."""
        self.attempts += 1
        gate = gate or Gate()
        return StageContext(
            address=self.address,
            folder=self.folder,
            work=self.work,
            hosts=self.hosts,
            places=_WritePlaces(self.transports, self.commands, gate),
            report=self.report,
            tools=self.tools,
            clock=self.clock,
            kept=_GatedKept(self.kept, gate),
            attempt=self.attempts,
            deadline=deadline,
            variables=self.variables,
            forwarder=GatedForwarder(self.forwarder, gate.effect),
            epoch=1,
        )
