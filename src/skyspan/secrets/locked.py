"""Owns the locks between processes that change the keys of one home; the kernel gives them up when a process dies.

`creating` is held for moments, by whoever adds or replaces key files. `rotating` is held as long as a rotation takes,
and shared by those who must see one state of the keys for a while, such as a backup.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from skyspan.model.error import RefusedError, SealError

_PATIENCE_S = 30.0
_PAUSE_S = 0.01


@contextmanager
def creating(home: Path) -> Iterator[None]:
    """Nobody else adds or replaces key files meanwhile; waits for the other one. Raises SealError."""
    _folder(home)
    with _lock(home / "keys", fcntl.LOCK_EX, _PATIENCE_S) as got:
        if not got:
            raise SealError(f"another process changes the keys of {home} and does not end", hint="look for it with ps")
        yield


@contextmanager
def rotating(home: Path, *, shared: bool = False) -> Iterator[None]:
    """No rotation begins meanwhile; with `shared`, others may share. Raises RefusedError when one goes on."""
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    with _lock(home, kind, 0.0) as got:
        if not got:
            raise RefusedError(
                f"the keys of {home} are in use: a rotation or a backup goes on in another process",
                hint="wait until it has ended, then run the command again",
            )
        yield


@contextmanager
def _lock(folder: Path, kind: int, patience_s: float) -> Iterator[bool]:
    _folder(folder)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield _taken(descriptor, kind, time.monotonic() + patience_s)
    finally:
        os.close(descriptor)


def _folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SealError(
            f"cannot write {folder}: {error.strerror}", hint="choose a writable home with `--home`"
        ) from error


def _taken(descriptor: int, kind: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_PAUSE_S)
        else:
            return True
