"""What an earlier engine of a run left running or finished on this machine, as its keeper knows."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping

from skyspan.attempts.contexts import Trace
from skyspan.model.error import InDoubtError
from skyspan.transports.keeper.address import AttemptKey, KeptCommand
from skyspan.transports.keeper.link import KeeperLink
from skyspan.transports.keeper.process import KeptProcess
from skyspan.transports.running import to_the_end

Started = Mapping[AttemptKey, tuple[KeptCommand, ...]]


class KeeperTraces:
    """Implements `attempts.contexts.Traces`."""

    def __init__(self, link: KeeperLink, started: Started) -> None:
        self._link, self.started = link, started

    async def find(self, stage: str, attempt: int) -> Trace:
        """What is known of an attempt's commands."""
        commands = self.started.get(AttemptKey(stage, attempt), ())
        unknown = any(command.unknown for command in commands)
        return Trace(started=bool(commands), unknown=unknown, complete=self._link.complete)

    async def outlast(self, stage: str, attempt: int) -> None:
        """Wait until none of them runs any more; cancelling stops them in order."""
        for command in self.started.get(AttemptKey(stage, attempt), ()):
            if not command.over:
                await _to_its_end(self._link, command)

    def forget(self, stage: str, attempt: int) -> None:
        """They are not asked for again."""
        self._link.forget(AttemptKey(stage, attempt))

    async def stop_all(self) -> None:
        """Stop whatever of the run still runs, each by its own ladder, all at once."""
        running = [command for commands in self.started.values() for command in commands if not command.over]
        await asyncio.gather(*(_stop(self._link, command) for command in running))


def by_attempt(commands: Iterable[KeptCommand]) -> Started:
    """The commands, by the attempt that started them."""
    found: dict[AttemptKey, tuple[KeptCommand, ...]] = {}
    for command in commands:
        found[command.key] = (*found.get(command.key, ()), command)
    return found


async def _to_its_end(link: KeeperLink, command: KeptCommand) -> None:
    process = KeptProcess(link, command.key, command.ladder, None)
    # How it ended does not matter here: whoever waits looks anew.
    with contextlib.suppress(InDoubtError):
        await process.attach(command)
        await to_the_end(process, None)


async def _stop(link: KeeperLink, command: KeptCommand) -> None:
    process = KeptProcess(link, command.key, command.ladder, None)
    with contextlib.suppress(InDoubtError):
        await process.attach(command)
        await process.stop()
