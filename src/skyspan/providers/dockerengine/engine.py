"""The daemon of a stage while it is asked: where its commands run, with which words and which private files."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.contracts.transport import Command, Completed, Stream
from skyspan.model.error import ToolFailedError
from skyspan.model.secret import Secret
from skyspan.model.value import secrets_in
from skyspan.providers.dockerengine import commands
from skyspan.providers.dockerengine.commands import Sight
from skyspan.providers.dockerengine.failure import failed, refuse_old
from skyspan.providers.dockerengine.parse import Look, parse_look
from skyspan.providers.dockerengine.spec import EngineSettings, EngineSpec
from skyspan.providers.masking import mask_secrets

_NARROW = Sight()


@dataclass(frozen=True, slots=True)
class Where:
    """A daemon, as settings name it."""

    host: str | None = None
    settings: EngineSettings | None = None

    @classmethod
    def of(cls, spec: EngineSpec) -> Where:
        """The daemon of these settings."""
        return cls(spec.host, spec.engine)

    @property
    def name(self) -> str:
        """For people."""
        if self.settings is not None and self.settings.remote:
            return self.settings.endpoint
        return self.host or "this machine"

    @property
    def mark(self) -> str:
        """Equal for the same daemon, whatever its certificates."""
        return f"{self.host or ''} {self.settings.endpoint if self.settings else ''}"

    def address(self, ctx: ReadContext) -> str:
        """Where its published ports can be reached from here: a name or an address."""
        if self.settings is not None and self.settings.remote:
            return self.settings.address
        host = ctx.hosts.get(self.host) if self.host is not None else None
        return host.address if host is not None else "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Engine:
    """A daemon that can be asked. `words` are the docker command's options; `secrets` never show in errors."""

    where: Where
    words: tuple[str, ...]
    ctx: ReadContext
    secrets: frozenset[Secret]

    async def look(self, label: str, sight: Sight = _NARROW) -> Look:
        """One look; raises StageError when the daemon is absent, not ours to ask, or, where
        its version is asked for, too old."""
        command = commands.look(self.words, label, str(self.ctx.address), sight)
        done = await self.ask("looking at Docker", command)
        try:
            seen = parse_look(done.text())
        except (ValueError, KeyError, TypeError) as error:
            raise ToolFailedError(
                f"Docker on {self.where.name} said what is not understood", detail=f"{type(error).__name__}: {error}"
            ) from error
        if seen.version:
            refuse_old(self.where.name, seen.version, seen.api)
        return seen

    async def ask(self, what: str, command: Command) -> Completed:
        """Run a command that reads and demand that it ends well."""
        return self._judged(what, await self.ctx.places.reach(self.where.host).query(command))

    async def do(self, what: str, command: Command, hear: Callable[[str], None] | None = None) -> Completed:
        """Run a command that writes and demand that it ends well; its words go to the log."""
        return self._judged(what, await self.attempt(command, hear))

    async def attempt(self, command: Command, hear: Callable[[str], None] | None = None) -> Completed:
        """Run a command that writes, however it ends; `hear` gets the words of its standard error as they come."""
        assert isinstance(self.ctx, StageContext), "only a context that may write gets here"

        def on_output(stream: Stream, data: bytes) -> None:
            self.ctx.report.output(stream, data)
            if hear is not None and stream is Stream.ERR:
                hear(data.decode(errors="replace"))

        return await self.ctx.places.reach(self.where.host).run(command, on_output)

    async def logs(self, container: str, lines: int = 20) -> str:
        """The last lines of a container, clean of secrets; empty when they cannot be had."""
        done = await self.ctx.places.reach(self.where.host).query(commands.logs(self.words, container, lines))
        return self.clean(done.text().rstrip()) if done.ok else ""

    def clean(self, words: str) -> str:
        """The words without the stage's secrets."""
        return mask_secrets(words, self.secrets)

    def _judged(self, what: str, done: Completed) -> Completed:
        if not done.ok:
            raise failed(what, self.where.name, done, self.clean(done.last_words()))
        return done


@asynccontextmanager
async def opened(where: Where, ctx: ReadContext, secrets: frozenset[Secret]) -> AsyncIterator[Engine]:
    """The daemon, with its TLS files in the stage's folder: readable by us alone, and gone afterwards."""
    words: list[str] = []
    files: list[Path] = []
    try:
        if where.settings is not None:
            words += ["-H", where.settings.endpoint]
            for option, text in where.settings.files().items():
                files.append(_private(ctx, text))
                words += [option, str(files[-1])]
            if files:
                words.append("--tlsverify")
        ours = secrets_in(where.settings.model_dump()) if where.settings is not None else frozenset()
        yield Engine(where, tuple(words), ctx, secrets | ours)
    finally:
        for file in files:
            with contextlib.suppress(OSError):
                file.unlink()


def _private(ctx: ReadContext, text: str) -> Path:
    """A file that belongs to the attempt, so that it goes with it even when this process is killed."""
    ctx.work.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(prefix="tls-", suffix=f".{ctx.attempt_id}" if ctx.attempt_id else "", dir=ctx.work)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text if text.endswith("\n") else text + "\n")
    return Path(name)
