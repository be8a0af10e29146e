"""The forwarder as a program: takes its orders from standard input, makes itself a process of its own session, serves.

Its folder, for its owner alone, holds a lock, a socket, a log and its identity, and never a secret: those are only in
its memory. When the folder goes, the process goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from skyspan.transports.forwarder.order import forwarding_of, way_of
from skyspan.transports.forwarder.serving import Forwarder, attend
from skyspan.transports.keeper.identity import began, boot_id
from skyspan.transports.keeper.main import within

LOCK, SOCKET, IDENTITY, LOG = "lock", "forwarder.sock", "identity", "log"

RUNS_ALREADY = 3
"""Exit status when another one holds the folder."""

_LOG_BYTES = 2**18
_LOOKS_EVERY_S = 0.5


def main(folder: str) -> None:
    """Forward as standard input says. The process that called returns when the forwarder can be asked; its child goes
    on."""
    os.umask(0o077)
    order = json.load(sys.stdin.buffer)
    place = Path(folder)
    lock = os.open(place / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(RUNS_ALREADY)
    listener = _listen(place)
    child = os.fork()
    if child:
        # Written here, so that whoever started us finds it.
        identity = {"pid": child, "began": began(child), "boot": boot_id()}
        (place / "identity.new").write_text(json.dumps(identity))
        (place / "identity.new").rename(place / IDENTITY)
        os._exit(0)
    os.setsid()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    asyncio.run(_serve(place, lock, listener, order))


async def _serve(place: Path, lock: int, listener: socket.socket, order: dict[str, Any]) -> None:
    log = _Log(place / LOG)
    try:
        forwarder = Forwarder(way_of(order["way"]), forwarding_of(order["forwarding"]), place, log.say)
        server = await asyncio.start_unix_server(
            lambda reader, writer: attend(forwarder, reader, writer), sock=listener
        )
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, forwarder.over.set)
        watching = asyncio.create_task(_until_folder_goes(place, lock, forwarder.over))
        await forwarder.run()
        watching.cancel()
        server.close()
    except BaseException as error:
        log.say(f"ended by {type(error).__name__}: {error}")
        raise


async def _until_folder_goes(place: Path, lock: int, over: asyncio.Event) -> None:
    """End when the folder is removed, or made anew by another: nobody could find this one again."""
    while True:
        try:
            ours = os.path.samestat((place / LOCK).stat(), os.fstat(lock))
        except OSError:
            ours = False
        if not ours:
            over.set()
            return
        await asyncio.sleep(_LOOKS_EVERY_S)


def _listen(place: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Left by one that was killed: whoever holds the lock may remove it.
    (place / SOCKET).unlink(missing_ok=True)
    with within(str(place)) as short:
        listener.bind(f"{short}/{SOCKET}")
    listener.listen(16)
    return listener


class _Log:
    """What happened, bounded in size. A disk that takes no more stops nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def say(self, text: str) -> None:
        """Add a line."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with contextlib.suppress(OSError):
            if self._path.exists() and self._path.stat().st_size > _LOG_BYTES:
                self._path.replace(self._path.with_suffix(".old"))
            with self._path.open("a") as file:
                file.write(f"{stamp} {text}\n")
