"""The keeper as a program: makes itself a process of its own session, and serves.

Imports the standard library and its own small modules only, and no pathlib, so that it starts in some 30 ms, stays
small and forks fast.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
from collections.abc import Iterator

from skyspan.transports.keeper.serving import Keeper
from skyspan.transports.keeper.sweeping import LOCK, claim, close, sweep, tidy

SOCKET = "keeper.sock"


def main(folder: str, logs: str) -> None:
    """Keep for the state home's `folder`, with raw output in `logs`. Returns at once when another keeper does.

    The process that called returns when engines can connect; its child goes on.
    """
    os.umask(0o077)
    os.makedirs(logs, mode=0o700, exist_ok=True)  # noqa: PTH103
    lock = os.open(f"{folder}/{LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    listener = _listen(folder)
    if os.fork():
        return
    os.setsid()
    os.chdir("/")
    # Its starter reads its last words to their end.
    os.dup2(0, 2)
    claim(logs, folder)
    tidy(logs, folder)
    sweep(logs, folder)
    keeper = Keeper(folder, logs, listener, lambda: _is_ours(folder, lock))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # A handler and not SIG_IGN, which commands would inherit.
        signal.signal(number, lambda *_: None if keeper.busy else os._exit(0))
    try:
        keeper.serve()
    finally:
        if _is_ours(folder, lock):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{folder}/{SOCKET}")  # noqa: PTH108
        close(logs, folder)


def _is_ours(folder: str, lock: int) -> bool:
    """Whether the folder is still the one that was locked: a home may be removed, and be made anew."""
    with contextlib.suppress(OSError):
        return os.path.samestat(os.stat(f"{folder}/{LOCK}"), os.fstat(lock))  # noqa: PTH116
    return False


def _listen(folder: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.suppress(FileNotFoundError):
        # Left by one that was killed: whoever holds the lock may remove it.
        os.unlink(f"{folder}/{SOCKET}")  # noqa: PTH108
    with within(folder) as short:
        listener.bind(f"{short}/{SOCKET}")
    listener.listen(64)
    return listener


@contextlib.contextmanager
def within(folder: str) -> Iterator[str]:
    """A short name of `folder` while the block lasts: addresses of Unix sockets end after 107 bytes."""
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)
