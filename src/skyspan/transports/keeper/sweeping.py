"""Removes raw output that nobody can ask for any more: keepers that are killed cannot, and their homes may go."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat

LOCK = "keeper.lock"

_OF = ".of"
"""In each folder of raw output, a link to the keeper's folder in the home that it belongs to."""


def claim(logs: str, folder: str) -> None:
    """Say that `logs` belongs to the keeper in `folder`. Raises PermissionError when somebody else made it."""
    if not _is_ours(logs):
        raise PermissionError(f"{logs} belongs to somebody else: remove it")
    with contextlib.suppress(FileExistsError):
        os.symlink(folder, f"{logs}/{_OF}")  # noqa: PTH211 - without pathlib, see main


def sweep(logs: str, folder: str) -> None:
    """Remove what is left beside `logs`, of this user, by keepers that do not run any more."""
    place, name = os.path.split(logs)
    with contextlib.suppress(OSError):
        for other in os.listdir(place):  # noqa: PTH208
            if other != name and other.startswith(name.rpartition("-")[0] + "-"):
                with contextlib.suppress(OSError):
                    _sweep_other(f"{place}/{other}", os.path.basename(folder))  # noqa: PTH119


def tidy(logs: str, folder: str) -> None:
    """Remove raw output of runs that the journals in `folder` do not know, and all of it when there is no folder."""
    there = os.path.isdir(folder)  # noqa: PTH112
    for entry in os.listdir(logs):  # noqa: PTH208
        if entry != _OF and not (there and os.path.exists(f"{folder}/{entry.split('.')[0]}.journal")):  # noqa: PTH110
            with contextlib.suppress(OSError):
                os.unlink(f"{logs}/{entry}")  # noqa: PTH108


def close(logs: str, folder: str) -> None:
    """The keeper ends: the folder goes, unless something in it is still to be asked for."""
    with contextlib.suppress(OSError):
        tidy(logs, folder)
        if os.listdir(logs) in ([], [_OF]):  # noqa: PTH208
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{logs}/{_OF}")  # noqa: PTH108
            os.rmdir(logs)  # noqa: PTH106


def _is_ours(logs: str) -> bool:
    """Whether we made this folder; where everybody may write, nobody else can replace one of ours."""
    status = os.lstat(logs)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()


def _sweep_other(logs: str, surroundings: str) -> None:
    if not _is_ours(logs):
        return
    folder = os.readlink(f"{logs}/{_OF}")  # noqa: PTH115
    if os.path.basename(folder) != surroundings:  # noqa: PTH119
        return  # Of other namespaces, where its home may well be.
    try:
        lock = os.open(f"{folder}/{LOCK}", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        close(logs, folder)
        return
    try:
        # Held meanwhile, so that no keeper begins there; one that runs takes care of its own.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        close(logs, folder)
    finally:
        os.close(lock)
