"""The contexts that providers get: everything they may know or do, wired for one attempt."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from skyspan.app.reporting import RunLog, StageReporter
from skyspan.app.session import Session
from skyspan.app.settings import ToolFinder
from skyspan.attempts.contexts import ContextRequest, Contexts
from skyspan.contracts.context import ReadContext, StageContext
from skyspan.contracts.transport import Reader
from skyspan.model.error import StoreUnavailableError
from skyspan.secrets.redactor import Redactor
from skyspan.transports.dialler import HostDialler
from skyspan.transports.read_only import ReadOnly


@dataclass(frozen=True, slots=True)
class ReadPlaces:
    """Places that can be looked at only; implements `contracts.context.Places`."""

    dialler: HostDialler

    def reach(self, host: str | None) -> Reader:
        """The place where `host` is; None is this machine."""
        return ReadOnly(self.dialler.reach(host))


class NothingKept:
    """What a stage that was never applied has kept; spares each new stage a question to the store."""

    async def get(self, name: str) -> bytes | None:
        """Nothing."""
        return None


@dataclass(frozen=True, slots=True)
class RunContexts:
    """Makes the contexts of one run's attempts; implements `attempts.contexts.ContextFactory`."""

    session: Session
    epoch: int
    log: RunLog
    redactor: Redactor
    dialler: HostDialler
    tools: ToolFinder

    @asynccontextmanager
    async def enter(self, request: ContextRequest) -> AsyncIterator[Contexts]:
        """The contexts while the attempt goes on."""
        reporter = StageReporter(request.address.name, request.attempt, self.log, self.redactor, request.journal)
        places = self.dialler.for_hosts(request.hosts)
        kept = self.session.store.kept(request.address, self.epoch)
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
        }
        seen = kept if request.recorded else NothingKept()
        reading = ReadContext(places=ReadPlaces(places), kept=seen, **shared)  # type: ignore[arg-type]
        writing = StageContext(places=places, kept=kept, epoch=self.epoch, **shared)  # type: ignore[arg-type]
        try:
            yield Contexts(reading, writing)
        finally:
            reporter.close()


def work_folder(session: Session, deployment: str) -> Path:
    """Where a deployment's stages keep their work folders."""
    return session.settings.home / "work" / session.settings.workspace / deployment


def make_private(folder: Path) -> Path:
    """`folder`, made where it is missing together with what is above it, for its owner alone.

    Raises StoreUnavailableError.
    """
    try:
        if not folder.is_dir():
            # `parents=True` would make those above by the umask, readable by others.
            for missing in reversed([place for place in (folder, *folder.parents) if not place.exists()]):
                missing.mkdir(exist_ok=True, mode=0o700)
            folder.mkdir(exist_ok=True)
    except OSError as error:
        raise StoreUnavailableError(
            f"cannot make {folder}: {error.strerror}",
            hint="check the disk and the permissions of the home, or name another one with --home",
        ) from error
    return folder


def tool_finder(session: Session) -> ToolFinder:
    """Finds tools as the settings say."""
    settings = session.settings
    path: Mapping[str, str] = settings.child_env
    return ToolFinder(settings.tool_folders, path.get("PATH", ""), settings.tool_settings)
