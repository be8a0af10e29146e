"""Owns how one attempt's commands on this machine are run so that they outlive the engine, and are found again."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from skyspan.contracts.transport import Command, Completed, Connection, DivergedError, Effect, OnOutput
from skyspan.model.error import SpecError
from skyspan.transports.arguments import revealed_argv, revealed_env, revealed_stdin
from skyspan.transports.keeper.address import AttemptKey, KeptCommand
from skyspan.transports.keeper.link import KeeperLink
from skyspan.transports.keeper.process import KeptProcess
from skyspan.transports.local import LocalTransport, not_started
from skyspan.transports.running import to_the_end


@dataclass(frozen=True, slots=True)
class Keeping:
    """What all attempts of a run share. `reached` is told of every crash point; `assured` holds the lease, or
    raises."""

    link: KeeperLink
    env: Mapping[str, str] = field(repr=False)
    digest_key: bytes = field(repr=False)
    reached: Callable[[str], None]
    assured: Callable[[], Awaitable[None]]


class KeptTransport:
    """This machine (a `Transport`). Commands that write are run by the keeper, the others by this process.

    `started` are the commands that another engine started in this attempt. Each answers the first command that is the
    same: with its output from the first byte and its own exit status, while it runs or after. A command that is none
    of them, while some have not been asked for, means that the attempt took another way: then DivergedError is raised
    once those have ended, and the attempt must look anew at what they left.
    """

    def __init__(
        self, local: LocalTransport, keeping: Keeping, key: AttemptKey, started: Sequence[KeptCommand] = ()
    ) -> None:
        self._local, self._keeping, self._key = local, keeping, key
        self._started = list(started)

    @property
    def name(self) -> str:
        return self._local.name

    async def query(self, command: Command, on_output: OnOutput | None = None) -> Completed:
        return await self._local.query(command, on_output)

    async def dial(self, address: str, port: int, timeout_s: float) -> Connection:
        return await self._local.dial(address, port, timeout_s)

    async def close(self) -> None:
        """The keeper's connection belongs to the run."""

    async def run(self, command: Command, on_output: OnOutput | None = None) -> Completed:
        if command.effect is Effect.READ:
            return await self._local.run(command, on_output)
        await self._keeping.assured()
        mark = self._digest(command)
        known = next((item for item in self._started if item.digest == mark), None)
        process = KeptProcess(self._keeping.link, self._key, command.ladder, on_output)
        if known is not None:
            self._started.remove(known)
            await process.attach(known)
        elif self._started:
            await self._outlast(on_output)
        else:
            await self._start(process, command, mark)
        done = await to_the_end(process, command.timeout_s)
        self._keeping.reached("command.ended")
        return done

    async def _start(self, process: KeptProcess, command: Command, mark: str) -> None:
        how = {
            "env": {**self._keeping.env, **revealed_env(command.env)},
            "cwd": command.cwd,
            "stdin": revealed_stdin(command) or b"",
        }
        self._keeping.reached("command.before")
        try:
            await process.start(mark, revealed_argv(command), how)
        except OSError as error:
            raise not_started(command, command.cwd, error) from error
        except (ValueError, IndexError) as error:
            raise SpecError(f"cannot run `{command.display()}`: {error}") from error
        self._keeping.reached("command.started")

    async def _outlast(self, on_output: OnOutput | None) -> None:
        """Wait for the end of what another engine started; its output is heard."""
        left, self._started = self._started, []
        for command in left:
            process = KeptProcess(self._keeping.link, self._key, command.ladder, on_output)
            await process.attach(command)
            await to_the_end(process, None)
        raise DivergedError("the attempt takes another way than the engine that began it")

    def _digest(self, command: Command) -> str:
        """What tells a command from another, keyed, as it is on disk and may come from secrets."""
        stdin = hashlib.sha256(revealed_stdin(command) or b"").hexdigest()
        parts = [revealed_argv(command), sorted(revealed_env(command.env).items()), command.cwd, stdin]
        return hmac.new(self._keeping.digest_key, json.dumps(parts).encode("ascii"), "sha256").hexdigest()
