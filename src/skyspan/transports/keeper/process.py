"""Owns one command that the keeper runs, as an engine sees it: its output, its end, its stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from skyspan.contracts.transport import Completed, OnOutput, StopLadder, Stream
from skyspan.model.error import InDoubtError
from skyspan.transports.descendants import Descendant, descendants, kill_descendants, marked, new_mark
from skyspan.transports.keeper.address import AttemptKey, KeptCommand
from skyspan.transports.keeper.link import KeeperLink, Message, Which
from skyspan.transports.keeper.output import OutputReader
from skyspan.transports.ladder import climb
from skyspan.transports.output import KeptOutput

_REPORT_EVERY = 8 * 2**20
_SLICE = 2**20
"""How much output is read in one turn of the loop: a flood must not keep the lease from being renewed."""
_STREAMS = (Stream.OUT, Stream.OUT, Stream.ERR)


class KeptProcess:
    """A command of the keeper (a `contracts.transport.Process`), followed from its first byte of output."""

    def __init__(self, link: KeeperLink, key: AttemptKey, ladder: StopLadder, on_output: OnOutput | None) -> None:
        self._link, self._key, self._ladder, self._on_output = link, key, ladder, on_output
        self._command: Which = (key, 0)
        self._number = 0
        self._began = time.monotonic()
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._kept = {Stream.OUT: KeptOutput(), Stream.ERR: KeptOutput()}
        self._log: OutputReader | None = None
        self._early: list[Message] = []
        self._reported = 0
        self._reading: Iterator[tuple[int, bytes]] | None = None
        self._behind: tuple[int, int] | None = None
        """Up to where there is more, as was told while it was being read."""
        self._told_exit: Message | None = None
        self._mark = ""
        self._mid_line = False
        self._exit: int | None = None
        self._error: Exception | None = None
        self.pid = 0

    async def start(self, digest: str, argv: Sequence[str], how: Mapping[str, Any]) -> None:
        """Have it started; raises as `KeeperLink.spawn`."""
        self._mark = new_mark()
        full = {**how, "env": marked(how["env"], self._mark), "mark": self._mark, "ladder": self._ladder}
        self._number, told = await self._link.spawn(self._key, digest, argv, full, self)
        self._known(told)

    async def attach(self, command: KeptCommand) -> None:
        """Follow one that was started before."""
        self._command, self._mark = (self._key, command.number), command.mark
        self._number, told = await self._link.attach(self._command, self)
        self._known({**told, "n": command.number})
        self.told({"at": told["at"], **({"exit": told["exit"]} if told["over"] else {})})

    async def wait(self) -> Completed:
        """Wait for its end and its output. Cancelling this leaves it running.

        Raises InDoubtError when nobody can know how it ended."""
        await asyncio.shield(self._ended)
        if self._error is not None:
            raise self._error
        if self._exit is None:
            raise InDoubtError(
                "the command ended, and how is unknown: the process that ran it was killed",
                hint="look whether it took effect before you repeat it",
            )
        return Completed(
            exit_code=self._exit,
            stdout=self._kept[Stream.OUT].whole(),
            stderr=self._kept[Stream.ERR].whole(),
            duration_s=time.monotonic() - self._began,
        )

    async def stop(self) -> Completed:
        """Stop it by its ladder and wait; what it leaves behind is killed, daemons too. Harmless when it has ended.

        Raises FencedError, having done nothing, when it belongs to another engine by now."""
        if not self._ended.done():
            # Now, while parents are known: what loses them by ending in order would not be found afterwards.
            below = descendants(self._mark, self.pid)
            try:
                await climb(self._ladder, self._ended, self._interrupt, self._kill, self._tell)
            except asyncio.CancelledError:
                self._kill_all(below)
                raise
            self._kill_all(below)
        return await self.wait()

    def told(self, message: Message) -> None:
        """Implements `Follower`."""
        if self._log is None:
            self._early.append(message)
            return
        self._behind = message["at"]
        if "exit" in message:
            self._told_exit = message
        if self._reading is None:
            self._read_on()

    async def reattach(self) -> None:
        """Implements `Follower`: read on behind what was read."""
        if not self._ended.done():
            self._number, told = await self._link.attach(self._command, self)
            self.told({"at": told["at"], **({"exit": told["exit"]} if told["over"] else {})})

    def lost(self, error: Exception) -> None:
        """Implements `Follower`."""
        if not self._ended.done():
            self._error = error
            self._over()

    def _known(self, told: Message) -> None:
        self.pid, self._command = told["pid"], (self._key, told["n"])
        self._log = OutputReader(told["log"])
        early, self._early = self._early, []
        for message in early:
            self.told(message)

    def _read_on(self) -> None:
        """Read what was told of, a slice of it in this turn; its end counts once all of its output is read."""
        if self._log is None or self._ended.done():
            return
        left = _SLICE
        while left > 0 and (self._reading is not None or self._behind is not None):
            if self._reading is None and self._behind is not None:
                self._reading, self._behind = self._log.until(*self._behind), None
            found = next(self._reading, None) if self._reading is not None else None
            if found is None:
                self._reading = None
            else:
                self._hear(*found)
                left -= len(found[1])
        if self._log.read - self._reported > _REPORT_EVERY:
            self._reported = self._log.read
            self._link.read(self._command, self._number, self._reported)
        if self._reading is not None or self._behind is not None:
            asyncio.get_running_loop().call_soon(self._read_on)
        elif self._told_exit is not None:
            self._exit = self._told_exit["exit"]
            self._over()

    def _hear(self, number: int, data: bytes) -> None:
        stream = _STREAMS[number]
        self._kept[stream].add(data)
        if stream is Stream.ERR:
            self._mid_line = not data.endswith(b"\n")
        if self._on_output is not None:
            self._on_output(stream, data)

    def _over(self) -> None:
        self._link.unfollow(self._number)
        if self._log is not None:
            self._log.close()
        self._ended.set_result(None)

    async def _interrupt(self) -> None:
        await self._signal(signal.SIGINT, group=False)

    async def _kill(self) -> None:
        below = descendants(self._mark, self.pid)
        await self._signal(signal.SIGKILL, group=True)
        self._kill_all(below)

    def _kill_all(self, known: Sequence[Descendant]) -> None:
        """End what is left of all that it started, in whatever session that is by now."""
        killed = kill_descendants(self._mark, known) if self._mark else ()
        if killed:
            named = ", ".join(f"{one.pid} ({one.name})" for one in killed)
            self._tell(f"killed what it had started: {named}")

    def _tell(self, text: str) -> None:
        if self._on_output is not None:
            start = "\n" if self._mid_line else ""
            self._mid_line = False
            self._on_output(Stream.ERR, f"{start}skyspan: {text}\n".encode())

    async def _signal(self, number: int, *, group: bool) -> None:
        # A keeper that was killed meanwhile: the next rung of the ladder tries again.
        with contextlib.suppress(InDoubtError):
            await self._link.signal(self._command, number, group=group)
