"""Owns the keeper's conversation with engines: who is connected, what they ask, what they are told.

Messages are JSON objects, one per line. A request has `op` and `re`; its answer has the same `re`, and `error` when it
was refused. Besides, whoever started a command or attached to it is told `{id, at: [segment, offset]}` as its output
grows, and `{id, at, exit}` at its end; `exit` is null when nobody can know. Requests that act name a deployment and
an epoch: older epochs than the newest seen are refused, so that an engine that lost its lease can neither start nor
stop anything.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

from skyspan.transports.keeper.identity import boot_id
from skyspan.transports.keeper.journal import Journal
from skyspan.transports.keeper.task import Task

PROTOCOL = 1

IDLE_S = 10.0
"""How long the keeper stays when nothing runs and nobody is connected."""

_SETTLE_S = 0.1
"""How soon after a command's end its status is made durable, if it is still needed by then."""

Message = dict[str, Any]


class Client:
    """A connected engine."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.run = ""
        self.incoming = b""
        self.outgoing = b""

    def flush(self) -> None:
        """Send what can be sent now."""
        with contextlib.suppress(BlockingIOError):
            while self.outgoing:
                self.outgoing = self.outgoing[self.socket.send(self.outgoing) :]


class Keeper:
    """Everything that this keeper keeps."""

    def __init__(self, folder: str, logs: str, listener: socket.socket, wanted: Callable[[], bool]) -> None:
        """`wanted` tells whether the home is still there."""
        self._folder, self._logs, self._wanted = folder, logs, wanted
        self._boot = boot_id()
        self._selector = selectors.DefaultSelector()
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        self._clients: set[Client] = set()
        self._journals: dict[str, Journal] = {}
        self._tasks: dict[tuple[str, str, int, int], Task] = {}
        self._epochs: dict[str, int] = {}
        self._unsettled: dict[str, float] = {}
        self._lingering: set[Task] = set()
        self._idle_since = time.monotonic()

    def serve(self) -> None:
        """Serve until there is nothing to do for a while."""
        while not self._idle():
            pause = _SETTLE_S if self._lingering or self._unsettled else IDLE_S / 4
            for key, _ in self._selector.select(pause):
                # An earlier one of this round may have closed it.
                if key.fd in self._selector.get_map():
                    key.data(key.fileobj)
            self._tidy()

    @property
    def busy(self) -> bool:
        """Whether a command runs."""
        return any(not task.over for task in self._tasks.values())

    def _idle(self) -> bool:
        if self._clients or self.busy:
            self._idle_since = time.monotonic()
            return False
        return time.monotonic() - self._idle_since > IDLE_S or not self._wanted()

    def _tidy(self) -> None:
        now = time.monotonic()
        for task in [task for task in self._lingering if task.silent or now > task.until]:
            self._finish(task)
        for run in [run for run, due in self._unsettled.items() if now > due]:
            del self._unsettled[run]
            if run in self._journals:
                self._journals[run].sync()

    # Engines.

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            connection, _ = listener.accept()
            peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            if struct.unpack("3i", peer)[1] != os.getuid():
                connection.close()
                return
            connection.setblocking(False)
            client = Client(connection)
            self._clients.add(client)
            self._selector.register(connection, selectors.EVENT_READ, lambda _: self._hear(client))

    def _hear(self, client: Client) -> None:
        try:
            data = client.socket.recv(2**20)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._part(client)
            return
        *lines, client.incoming = (client.incoming + data).split(b"\n")
        for line in lines:
            self._answer(client, json.loads(line))

    def _part(self, client: Client) -> None:
        self._clients.discard(client)
        self._selector.unregister(client.socket)
        client.socket.close()
        for task in self._tasks.values():
            for watcher in [watcher for watcher in task.watchers if watcher[0] is client]:
                del task.watchers[watcher]
            task.listen(self._selector, self._tell)

    def _answer(self, client: Client, request: Message) -> None:
        try:
            reply: Message = getattr(self, f"_do_{request['op']}")(client, request)
        except Exception as error:
            number, name = getattr(error, "errno", None), getattr(error, "filename", None)
            text = os.strerror(number) if number else str(error)
            reply = {"error": type(error).__name__, "text": text, "errno": number, "filename": name}
        self._send(client, {"re": request["re"], **reply})

    def _send(self, client: Client, message: Message) -> None:
        waiting = bool(client.outgoing)
        client.outgoing += (json.dumps(message) + "\n").encode("ascii")
        if not waiting:
            # One that is gone is noticed by the selector in a moment.
            with contextlib.suppress(OSError):
                client.flush()
            if client.outgoing:
                both = selectors.EVENT_READ | selectors.EVENT_WRITE
                self._selector.modify(client.socket, both, lambda _: self._go_on(client))

    def _go_on(self, client: Client) -> None:
        try:
            client.flush()
        except OSError:
            client.outgoing = b""
        if not client.outgoing:
            self._selector.modify(client.socket, selectors.EVENT_READ, lambda _: self._hear(client))
        self._hear(client)

    # Requests.

    def _do_hello(self, client: Client, request: Message) -> Message:
        self._fence(request)
        client.run = request["run"]
        journal = self._journal(client.run)
        if request["fresh"]:
            journal.begin()
        return {"protocol": PROTOCOL, "pid": os.getpid(), "complete": journal.complete}

    def _do_records(self, client: Client, request: Message) -> Message:
        return {"records": [task.record() for task in self._of_run(request["run"])]}

    def _do_spawn(self, client: Client, request: Message) -> Message:
        self._fence(request)
        attempt = (request["run"], request["stage"], request["attempt"])
        number = 1 + max((task.key[3] for task in self._of_attempt(attempt)), default=0)
        key = (*attempt, number)
        task = Task(key, request["digest"], self._log(key))
        task.ladder, task.mark = request["ladder"], request["mark"]
        journal = self._journal(request["run"])
        journal.write(**task.line(digest=task.digest, ladder=task.ladder, mark=task.mark))
        try:
            how = {"cwd": request["cwd"], "env": request["env"], "umask": request["umask"]}
            task.start(request["argv"], how, base64.b64decode(request["stdin"]))
        except BaseException:
            journal.write(**task.line(failed=True))
            raise
        journal.write(**task.line(pid=task.pid, began=task.began))
        self._tasks[key] = task
        task.watchers[client, request["id"]] = 0
        task.watch(self._selector, self._ended, self._tell)
        return {"pid": task.pid, "n": number, "log": self._log(key)}

    def _do_attach(self, client: Client, request: Message) -> Message:
        self._fence(request)
        task = self._task(request)
        task.watchers[client, request["id"]] = 0
        return {**task.record(), "log": self._log(task.key)}

    def _do_read(self, client: Client, request: Message) -> Message:
        task = self._task(request)
        if (client, request["id"]) in task.watchers:
            task.watchers[client, request["id"]] = request["bytes"]
            task.listen(self._selector, self._tell)
        return {}

    def _do_signal(self, client: Client, request: Message) -> Message:
        self._fence(request)
        task = self._task(request)
        if not task.over:
            task.signal(request["signal"], group=request["group"])
        return {}

    def _do_forget(self, client: Client, request: Message) -> Message:
        """An attempt's outcome is recorded elsewhere: nothing of it is needed any more."""
        self._fence(request)
        attempt = (request["run"], request["stage"], request["attempt"])
        for task in self._of_attempt(attempt):
            if task.over:
                self._drop(task)
        self._journal(request["run"]).write(stage=attempt[1], attempt=attempt[2], forgotten=True)
        return {}

    def _do_close(self, client: Client, request: Message) -> Message:
        """A run is over: all of it goes, unless a command of it still runs or another engine works on it."""
        run = request["over"]
        tasks = self._of_run(run)
        watched = any(other is not client and other.run == run for other in self._clients)
        if not watched and not any(not task.over for task in tasks):
            for task in tasks:
                self._drop(task)
            self._journals.pop(run).remove()
        return {"running": sum(not task.over for task in tasks)}

    def _fence(self, request: Message) -> None:
        deployment, epoch = request["deployment"], request["epoch"]
        newest = self._epochs.get(deployment, 0)
        if epoch < newest:
            raise PermissionError(f"the newest epoch is {newest}")
        self._epochs[deployment] = epoch

    # What is kept.

    def _journal(self, run: str) -> Journal:
        if run not in self._journals:
            if "/" in run or run.startswith("."):
                raise ValueError(f"no name of a run: {run!r}")
            self._journals[run] = Journal(f"{self._folder}/{run}.journal", self._boot)
            self._recall(run, self._journals[run])
        return self._journals[run]

    def _recall(self, run: str, journal: Journal) -> None:
        """Take over what another keeper left."""
        for line in journal.lines:
            if line.get("forgotten"):
                for task in self._of_attempt((run, line["stage"], line["attempt"])):
                    del self._tasks[task.key]
            if "n" not in line:
                continue
            key = (run, line["stage"], line["attempt"], line["n"])
            task = self._tasks.setdefault(key, Task(key, line.get("digest", ""), self._log(key)))
            task.ladder, task.mark = line.get("ladder", task.ladder), line.get("mark", task.mark)
            task.pid, task.began = line.get("pid", task.pid), line.get("began", task.began)
            task.exit, task.over = line.get("exit", task.exit), task.over or "exit" in line
            if line.get("failed"):
                del self._tasks[key]
        for task in self._of_run(run):
            task.adopt()
            if not task.over:
                task.watch(self._selector, self._ended, self._tell)

    def _of_run(self, run: str) -> list[Task]:
        self._journal(run)
        return [task for task in self._tasks.values() if task.key[0] == run]

    def _of_attempt(self, attempt: tuple[str, str, int]) -> list[Task]:
        return [task for task in self._tasks.values() if task.key[:3] == attempt]

    def _task(self, request: Message) -> Task:
        self._journal(request["run"])
        return self._tasks[request["run"], request["stage"], request["attempt"], request["n"]]

    def _log(self, key: tuple[str, str, int, int]) -> str:
        return f"{self._logs}/{'.'.join(map(str, key))}"

    def _drop(self, task: Task) -> None:
        task.output.remove()
        del self._tasks[task.key]

    # Commands.

    def _ended(self, task: Task) -> None:
        silent = task.collect(self._selector)
        if task.exit is not None:
            journal = self._journals[task.key[0]]
            journal.write(**task.line(exit=task.exit))
            self._unsettled.setdefault(task.key[0], time.monotonic() + _SETTLE_S)
        if not silent:
            task.drain(self._selector)
        if task.silent:
            self._finish(task)
        else:
            self._lingering.add(task)

    def _finish(self, task: Task) -> None:
        self._lingering.discard(task)
        task.finish(self._selector)
        self._tell(task)

    def _tell(self, task: Task) -> None:
        message: Message = {"at": [task.output.segment, task.output.offset]}
        if task.over:
            message |= {"exit": task.exit}
        for client, number in tuple(task.watchers):
            self._send(client, {"id": number, **message})
