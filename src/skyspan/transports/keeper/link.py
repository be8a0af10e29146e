"""Owns an engine's connection to the keeper: requests and their answers, and what is told of running commands."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from skyspan.contracts.transport import StopLadder
from skyspan.model.error import FencedError, InDoubtError, StoreUnavailableError
from skyspan.transports.keeper.address import AttemptKey, KeeperPlace, KeptCommand, RunKey
from skyspan.transports.keeper.starting import connect

_ANSWER_TIMEOUT_S = 60.0

Message = dict[str, Any]

Which = tuple[AttemptKey, int]
"""Which command: its attempt and its number in it."""


class Follower(Protocol):
    """Who is told of one command."""

    def told(self, message: Message) -> None:
        """Its output grew, or it ended."""
        ...

    async def reattach(self) -> None:
        """The keeper was killed, and there is another one."""
        ...

    def lost(self, error: Exception) -> None:
        """Nobody will tell any more."""
        ...


class KeeperLink:
    """One run's connection to its keeper, opened by the first request, and again when the keeper was killed."""

    def __init__(self, place: KeeperPlace, key: RunKey) -> None:
        self._place, self._key = place, key
        self._socket: socket.socket | None = None
        self._opening: asyncio.Task[None] | None = None
        self._mending: asyncio.Task[None] | None = None
        self._incoming = b""
        self._outgoing = b""
        self._asked = 0
        self._answers: dict[int, asyncio.Future[Message]] = {}
        self._followers: dict[int, Follower] = {}
        self._closed = False
        self.complete = False
        """Whether the keeper knows of every command that was started here in this run."""

    async def open(self) -> None:
        """Be connected. Raises StoreUnavailableError, FencedError, InDoubtError after `close`."""
        if self._closed:
            raise InDoubtError("the connection to the keeper was given up")
        if self._socket is None:
            if self._opening is None or self._opening.done():
                self._opening = asyncio.create_task(self._open())
            await asyncio.shield(self._opening)

    async def close(self) -> None:
        """Give it up; commands go on running. Never raises."""
        self._closed = True
        for task in (self._opening, self._mending):
            if task is not None:
                task.cancel()
                await asyncio.wait({task})
        self._disconnect()
        for answer in self._answers.values():
            answer.cancel()

    async def spawn(
        self, key: AttemptKey, digest: str, argv: Sequence[str], how: Mapping[str, Any], follower: Follower
    ) -> tuple[int, Message]:
        """Start a command; the number by which `follower` is told, and pid, n and log.

        `how` has env, cwd, stdin, mark and ladder. Raises OSError or ValueError as `subprocess.Popen` does,
        FencedError, and InDoubtError when the keeper was killed meanwhile.
        """
        ladder: StopLadder = how["ladder"]
        number = self._follow(follower)
        request = {
            "id": number,
            "digest": digest,
            "argv": list(argv),
            "env": how["env"],
            "cwd": how["cwd"],
            "stdin": base64.b64encode(how["stdin"]).decode("ascii"),
            "umask": _umask(),
            "mark": how["mark"],
            "ladder": [ladder.first_s, ladder.second_s],
        }
        try:
            return number, await self._ask("spawn", key, **request)
        except BaseException:
            self.unfollow(number)
            raise

    async def attach(self, command: Which, follower: Follower) -> tuple[int, Message]:
        """Follow a command that is known already, from its first byte of output."""
        number = self._follow(follower)
        return number, await self._ask("attach", command[0], n=command[1], id=number)

    async def signal(self, command: Which, signal: int, *, group: bool) -> None:
        """Signal a command, or all of its group."""
        await self._ask("signal", command[0], n=command[1], signal=signal, group=group)

    def read(self, command: Which, number: int, size: int) -> None:
        """Tell that `size` bytes of its output were read."""
        with contextlib.suppress(OSError):
            self._send(self._message("read", command[0], n=command[1], id=number, bytes=size) | {"re": 0})

    async def records(self) -> tuple[KeptCommand, ...]:
        """Every command of the run that the keeper knows of."""
        found = (await self._ask("records"))["records"]
        return tuple(
            KeptCommand(
                AttemptKey(item["stage"], item["attempt"]),
                item["n"],
                item["digest"],
                item["pid"],
                item["over"],
                item["orphan"],
                StopLadder(*item["ladder"]),
                item["mark"],
            )
            for item in found
        )

    def forget(self, key: AttemptKey) -> None:
        """The attempt's outcome is recorded: what the keeper has of it may go."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._send(self._message("forget", key) | {"re": 0})

    async def end_run(self, run: str) -> int:
        """A run is over: the keeper may forget it. How many of its commands still run, which keeps it."""
        return int((await self._ask("close", over=run))["running"])

    def known_runs(self) -> tuple[str, ...]:
        """The runs of which a keeper has kept something."""
        return tuple(sorted(path.stem for path in self._place.folder.glob("*.journal")))

    def unfollow(self, number: int) -> None:
        """Nobody wants to hear of it any more."""
        self._followers.pop(number, None)

    def _follow(self, follower: Follower) -> int:
        self._asked += 1
        self._followers[self._asked] = follower
        return self._asked

    def _message(self, op: str, key: AttemptKey | None = None, **more: Any) -> Message:
        run = {"op": op, "run": self._key.run, "deployment": self._key.deployment, "epoch": self._key.epoch}
        return run | ({} if key is None else {"stage": key.stage, "attempt": key.attempt}) | more

    async def _ask(self, op: str, key: AttemptKey | None = None, **more: Any) -> Message:
        await self.open()
        return await self._answered(self._message(op, key, **more))

    async def _answered(self, message: Message) -> Message:
        self._asked += 1
        number = self._asked
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        try:
            self._send(message | {"re": number})
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                reply = await answer
        except (OSError, TimeoutError) as error:
            raise _gone(message) from error
        finally:
            self._answers.pop(number, None)
        if "error" in reply:
            raise _refusal(reply)
        return dict(reply)

    async def _open(self) -> None:
        for _ in range(3):
            connection = self._socket = await connect(self._place)
            asyncio.get_running_loop().add_reader(connection, self._hear)
            try:
                hello = await self._answered(self._message("hello", fresh=self._key.fresh))
            except InDoubtError:
                # It was about to end.
                continue
            self.complete = bool(hello["complete"])
            return
        raise StoreUnavailableError(f"the keeper in {self._place.folder} does not answer")

    def _send(self, message: Message) -> None:
        if self._socket is None:
            raise ConnectionError("not connected")
        waiting = bool(self._outgoing)
        self._outgoing += (json.dumps(message) + "\n").encode("ascii")
        if not waiting:
            self._send_some()
            if self._outgoing:
                asyncio.get_running_loop().add_writer(self._socket, self._flush)

    def _flush(self) -> None:
        connection = self._socket
        if connection is None:
            return
        self._send_some()
        if not self._outgoing:
            asyncio.get_running_loop().remove_writer(connection)

    def _send_some(self) -> None:
        """Send as much as the socket takes."""
        if self._socket is None:
            return
        try:
            while self._outgoing:
                self._outgoing = self._outgoing[self._socket.send(self._outgoing) :]
        except BlockingIOError:
            return
        except OSError:
            # The reader notices too, and tells everybody who waits.
            self._outgoing = b""

    def _hear(self) -> None:
        connection = self._socket
        if connection is None:
            return
        try:
            data = connection.recv(2**20)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._broken()
            return
        *lines, self._incoming = (self._incoming + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "re" in message:
                answer = self._answers.get(message["re"])
                if answer is not None and not answer.done():
                    answer.set_result(message)
            elif (follower := self._followers.get(message["id"])) is not None:
                follower.told(message)

    def _disconnect(self) -> None:
        if self._socket is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._socket)
            loop.remove_writer(self._socket)
            self._socket.close()
        self._socket = None
        self._incoming = self._outgoing = b""

    def _broken(self) -> None:
        self._disconnect()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(ConnectionResetError("the keeper is gone"))
        if self._followers and not self._closed:
            self._mending = asyncio.create_task(self._mend())

    async def _mend(self) -> None:
        """Commands go on although their keeper was killed: have another one watch them."""
        for number, follower in tuple(self._followers.items()):
            self._followers.pop(number, None)
            try:
                await follower.reattach()
            except Exception as error:
                follower.lost(error)


def _gone(message: Message) -> InDoubtError:
    return InDoubtError(
        "the process that runs commands was killed",
        detail=f"while it was asked to {message['op']} for stage {message.get('stage', '')}".rstrip(),
        hint="whether the command was carried out is unknown: look before you repeat it",
    )


def _refusal(reply: Message) -> Exception:
    if reply["error"] == "PermissionError" and reply["errno"] is None:
        return FencedError("another engine took this deployment over", detail=reply["text"])
    if reply["errno"] is not None:
        return OSError(reply["errno"], reply["text"], reply["filename"])
    if reply["error"] == "KeyError":
        return InDoubtError("the keeper does not know the command any more", detail=reply["text"])
    return ValueError(reply["text"])


def _umask() -> int:
    """The umask of this process, which commands shall have too; there is no way to ask that does not set it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
