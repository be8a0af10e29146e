"""Where commands run: a Command is a value, a Transport performs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType, TracebackType
from typing import Protocol, TypeAlias

from skyspan.model.secret import MASK, Secret


class Effect(StrEnum):
    """Whether a command may change anything outside the stage's own work folder."""

    READ = "read"
    WRITE = "write"


class Stream(StrEnum):
    """Where a line came from."""

    OUT = "out"
    ERR = "err"


@dataclass(frozen=True, slots=True)
class Joined:
    """One argument made of parts (`--token=` and a secret), glued only inside a transport."""

    parts: tuple[str | Secret, ...]


Argument: TypeAlias = str | Secret | Joined


@dataclass(frozen=True, slots=True)
class StopLadder:
    """How a running command is stopped: SIGINT, wait, SIGINT again, wait, then SIGKILL to its whole group (seconds)."""

    first_s: float = 10.0
    second_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Command:
    """A command as a value.

    `argv` is never seen by a shell unless it names one. `stdin` is sent whole. `cwd` None is the transport's own
    folder. `timeout_s` ends it by its `ladder`. Secrets in `argv` are visible in process lists: pass them by `stdin`
    or a 0600 file instead; they are allowed in `env`.
    """

    argv: tuple[Argument, ...]
    env: Mapping[str, str | Secret] = field(default_factory=lambda: MappingProxyType({}))
    stdin: bytes | Secret | None = None
    cwd: str | None = None
    timeout_s: float | None = None
    effect: Effect = Effect.WRITE
    ladder: StopLadder = StopLadder()

    def display(self) -> str:
        """The command for people, quoted for a shell, every secret masked."""
        import shlex

        return " ".join(shlex.quote(self._shown(argument)) for argument in self.argv)

    @staticmethod
    def _shown(argument: Argument) -> str:
        if isinstance(argument, Joined):
            return "".join(MASK if isinstance(part, Secret) else part for part in argument.parts)
        return MASK if isinstance(argument, Secret) else argument


@dataclass(frozen=True, slots=True)
class Completed:
    """How a command ended. `exit_code` is negative for a signal. Output is kept whole up to the transport's limit,
    then its last part; `repr` shows neither, as both may hold secrets."""

    exit_code: int
    stdout: bytes = field(default=b"", repr=False)
    stderr: bytes = field(default=b"", repr=False)
    duration_s: float = 0.0
    timed_out: bool = False

    @property
    def ok(self) -> bool:
        """Whether it exited with 0 in time."""
        return self.exit_code == 0 and not self.timed_out

    def text(self) -> str:
        """Standard output as text, undecodable bytes replaced."""
        return self.stdout.decode(errors="replace")

    def last_words(self, lines: int = 15) -> str:
        """The last lines of standard error, or of standard output when that is empty."""
        said = (self.stderr.strip() or self.stdout.strip()).decode(errors="replace")
        return "\n".join(said.splitlines()[-lines:])


class DivergedError(Exception):
    """An attempt that another engine began took another way than that one: what it started has ended by now, and the
    attempt must look anew. Passes through providers; raised only while an attempt is carried on."""


OnOutput: TypeAlias = Callable[[Stream, bytes], None]
"""Called with raw output as it comes, in order per stream, at arbitrary split points; must not block."""


class Connection(Protocol):
    """A byte stream opened from where the transport is."""

    async def send(self, data: bytes) -> None:
        """Send all of `data`."""
        ...

    async def receive(self, limit: int = 65536) -> bytes:
        """The next bytes, at most `limit`; empty at the end."""
        ...

    async def close(self) -> None:
        """Close both directions; never raises."""
        ...


class Reader(Protocol):
    """The half of a transport that observe and plan get: it can look, not touch."""

    @property
    def name(self) -> str:
        """`here`, or the host's name."""
        ...

    async def query(self, command: Command, on_output: OnOutput | None = None) -> Completed:
        """Run a command whose effect is READ; a WRITE one raises PermissionError before anything runs.

        Raises UnreachableError, HostKeyError or CredentialsError when the place cannot be reached,
        ToolMissingError when `argv[0]` does not exist there. A non-zero exit is a result, not an error.
        """
        ...

    async def dial(self, address: str, port: int, timeout_s: float) -> Connection:
        """Open a TCP connection from this place.

        Raises UnreachableError that says refused, no route, unresolved or no answer in `timeout_s`.
        """
        ...


class Transport(Reader, Protocol):
    """A place where commands run."""

    async def run(self, command: Command, on_output: OnOutput | None = None) -> Completed:
        """Run any command; raises as `query`. Cancelling stops the command by its ladder, then raises."""
        ...

    async def close(self) -> None:
        """Give up connections; never raises."""
        ...


class Process(Protocol):
    """A command that goes on by itself, such as a daemon."""

    @property
    def pid(self) -> int:
        """Its process id, also its process group and session."""
        ...

    async def wait(self) -> Completed:
        """Wait for its end."""
        ...

    async def stop(self) -> Completed:
        """Stop it by its ladder and wait; harmless when it has ended."""
        ...


class Spawner(Protocol):
    """A place that can start long-running commands."""

    async def start(self, command: Command, on_output: OnOutput | None = None) -> Process:
        """Start `command` in a session of its own."""
        ...


class Dialler(Protocol):
    """Gives the transport for a host by its logical name."""

    def reach(self, host: str | None) -> Transport:
        """The transport of `host`; None is this machine. Connects on first use. Raises SpecError for a host that the
        composition does not name."""
        ...

    async def close(self) -> None:
        """Close every transport that was handed out."""
        ...

    async def __aenter__(self) -> Dialler: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
