"""The contexts that providers get: everything they may know or do, wired for one attempt."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from types import MappingProxyType

from skyspan.app.folders import make_private, work_folder
from skyspan.app.heard import heard_before
from skyspan.app.reporting import RunLog, StageReporter
from skyspan.app.session import Session
from skyspan.app.settings import ToolFinder
from skyspan.attempts.contexts import ContextRequest, Contexts
from skyspan.contracts.context import KeptWriter, ReadContext, StageContext
from skyspan.contracts.host import Host
from skyspan.contracts.transport import Reader, StopLadder, Transport
from skyspan.model.address import StageAddress
from skyspan.model.secret import Secret
from skyspan.secrets.redactor import Redactor
from skyspan.transports.dialler import HostDialler
from skyspan.transports.forwarder.guarded import GuardedForwarder, LazyForwarder
from skyspan.transports.guarded import GuardedTransport
from skyspan.transports.keeper.address import AttemptKey, KeptCommand
from skyspan.transports.keeper.transport import Keeping, KeptTransport
from skyspan.transports.laddered import LadderedTransport
from skyspan.transports.local import LocalTransport
from skyspan.transports.read_only import ReadOnly
from skyspan.transports.ssh_connect import SshSettings


@dataclass(frozen=True, slots=True)
class ReadPlaces:
    """Places that can be looked at only; implements `contracts.context.Places`."""

    dialler: HostDialler

    def reach(self, host: str | None) -> Reader:
        """The place where `host` is; None is this machine."""
        return ReadOnly(self.dialler.reach(host))


@dataclass(frozen=True, slots=True)
class SecretVariables:
    """The environment, every value a secret; implements `contracts.context.Variables`."""

    environment: Mapping[str, str] = field(repr=False)

    def get(self, name: str) -> Secret | None:
        """The value of `name`; None where it is not set or empty."""
        value = self.environment.get(name)
        return Secret(value) if value else None


class NothingKept:
    """What a stage that was never applied has kept; spares each new stage a question to the store."""

    async def get(self, name: str) -> bytes | None:
        """Nothing."""
        return None


@dataclass(frozen=True, slots=True)
class WritePlaces:
    """Places that may be changed while the lease is held; implements `contracts.context.WritablePlaces`."""

    dialler: HostDialler
    here: Transport
    keeping: Keeping
    ladder: StopLadder | None = None

    def reach(self, host: str | None) -> Transport:
        """The place where `host` is; None is this machine."""
        place = self.here
        if host is not None:
            place = GuardedTransport(self.dialler.reach(host), self.keeping.assured, self.keeping.reached)
        return place if self.ladder is None else LadderedTransport(place, self.ladder)


@dataclass(frozen=True, slots=True)
class PointedKept:
    """What a stage keeps, with crash points around each write; implements `contracts.context.KeptWriter`."""

    kept: KeptWriter
    reached: Callable[[str], None]

    async def get(self, name: str) -> bytes | None:
        """What was kept under `name`."""
        return await self.kept.get(name)

    async def put(self, name: str, data: bytes) -> None:
        """Keep `data`."""
        self.reached("kept.before")
        await self.kept.put(name, data)
        self.reached("kept.after")

    def put_soon(self, name: str, data: bytes) -> None:
        """Keep `data` together with what is written next."""
        self.reached("kept.before")
        self.kept.put_soon(name, data)

    async def remove(self, name: str) -> None:
        """Forget it."""
        self.reached("kept.before")
        await self.kept.remove(name)
        self.reached("kept.after")


@dataclass(frozen=True, slots=True)
class RunContexts:
    """Makes the contexts of one run's attempts; implements `attempts.contexts.ContextFactory`.

    `started` are the commands that an earlier engine of the run left behind, by attempt.
    """

    session: Session
    deployment: str
    run_id: str
    epoch: int
    log: RunLog
    redactor: Redactor
    dialler: HostDialler
    tools: ToolFinder
    keeping: Keeping
    local: LocalTransport
    started: Mapping[AttemptKey, tuple[KeptCommand, ...]] = field(default_factory=lambda: MappingProxyType({}))

    def discard_files(self, stage: str, attempt: int | None = None, run_id: str | None = None) -> None:
        """Remove the files in the stage's work folder that belong to an attempt whose outcome is recorded; `*` is every
        stage, None every attempt."""
        work = work_folder(self.session, self.deployment)
        name = f"*.{run_id or self.run_id}.{attempt or '*'}"
        if stage != "*":
            # Happens once per stage and often finds nothing: a plain look is a fraction of what a glob costs.
            try:
                found = [path for path in (work / stage).iterdir() if fnmatchcase(path.name, name)]
            except OSError:
                return
        else:
            found = list(work.glob(f"*/{name}"))
        for path in found:
            path.unlink(missing_ok=True)

    @asynccontextmanager
    async def enter(self, request: ContextRequest) -> AsyncIterator[Contexts]:
        """The contexts while the attempt goes on."""
        key = AttemptKey(request.address.name, request.attempt)
        heard = await heard_before(self.session, self.run_id, key.stage, key.attempt) if request.resumed else None
        reporter = StageReporter(key.stage, key.attempt, self.log, self.redactor, request.journal, heard)
        places = self.dialler.for_hosts(request.hosts)
        here = KeptTransport(self.local, self.keeping, key, self.started.get(key, ()) if request.resumed else ())
        kept = PointedKept(self.session.store.kept(request.address, self.epoch), self.keeping.reached)
        # Each stage makes its own folder when it needs one: most never do.
        work = make_private(work_folder(self.session, request.address.deployment.name)) / request.address.name
        shared = {
            "address": request.address,
            "folder": request.folder,
            "work": work,
            "hosts": request.hosts,
            "report": reporter,
            "tools": self.tools,
            "clock": self.session.clock,
            "attempt": request.attempt,
            "deadline": request.deadline,
            "rehearsal": self.session.settings.rehearsal,
            "attempt_id": f"{self.run_id}.{request.attempt}",
            "resumed": request.resumed,
            "variables": SecretVariables(self.session.settings.child_env),
        }
        seen = kept if request.recorded else NothingKept()
        forwarder = stage_forwarder(self.session, request.address, request.hosts)
        guarded = GuardedForwarder(forwarder, self.keeping.assured, self.keeping.reached)
        writable = WritePlaces(places, here, self.keeping, request.ladder)
        reading = ReadContext(places=ReadPlaces(places), kept=seen, forwarder=forwarder, **shared)  # type: ignore[arg-type]
        writing = StageContext(
            places=writable,
            kept=kept,
            forwarder=guarded,
            epoch=self.epoch,
            **shared,  # type: ignore[arg-type]
        )
        try:
            yield Contexts(reading, writing)
        finally:
            reporter.close()


def ssh_settings(session: Session) -> SshSettings:
    """How this installation speaks SSH."""
    settings = session.settings
    return SshSettings(settings.known_hosts, settings.identities, settings.ssh_agent)


def stage_forwarder(session: Session, address: StageAddress, hosts: Mapping[str, Host]) -> LazyForwarder:
    """The stage's process for SSH tunnels."""
    return LazyForwarder(session.settings.home, address, hosts, ssh_settings(session))


def tool_finder(session: Session) -> ToolFinder:
    """Finds tools as the settings say."""
    settings = session.settings
    path: Mapping[str, str] = settings.child_env
    return ToolFinder(settings.tool_folders, path.get("PATH", ""), settings.tool_settings)
