"""Owns the way to a home's keeper: connects, and starts one where none answers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import skyspan
from skyspan.model.error import StoreUnavailableError
from skyspan.transports.keeper.address import KeeperPlace
from skyspan.transports.keeper.main import SOCKET, within

_TRIES = 50
_PAUSE_S = 0.02
_START_TIMEOUT_S = 20.0

_PROGRAM = """\
import sys
sys.path.insert(0, sys.argv[1])
from skyspan.transports.keeper.main import main
main(sys.argv[2], sys.argv[3])
"""


async def connect(place: KeeperPlace) -> socket.socket:
    """A connection to the keeper, which is started first if need be. Raises StoreUnavailableError."""
    make_folder(place.folder)
    said = ""
    for _ in range(_TRIES):
        found = _connected(place)
        if found is not None:
            return found
        said = await asyncio.to_thread(_start, place)
        if (found := _connected(place)) is not None:
            return found
        # One that is about to end still holds the lock.
        await asyncio.sleep(_PAUSE_S)
    raise StoreUnavailableError(
        f"the keeper of {place.folder.parent.parent} cannot be reached",
        detail=said,
        hint="it runs the commands that change things; check the permissions and the disk of the home",
    )


def make_folder(folder: Path) -> None:
    """Make the keeper's folder, for its owner alone. Raises StoreUnavailableError."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StoreUnavailableError(
            f"cannot make {folder}: {error.strerror}",
            hint="check the disk and the permissions of the home, or name another one with --home",
        ) from error


def _connected(place: KeeperPlace) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.suppress(FileNotFoundError, ConnectionRefusedError), within(str(place.folder)) as short:
        connection.connect(f"{short}/{SOCKET}")
        connection.setblocking(False)
        return connection
    connection.close()
    return None


def _start(place: KeeperPlace) -> str:
    """Start a keeper and wait until it can be reached; its last words when that fails."""
    source = str(Path(skyspan.__file__).parent.parent)
    # `-X utf8` is not needed: it reads and writes bytes and ASCII. No site: neither start files nor installed packages.
    argv = [sys.executable, "-I", "-S", "-B", "-c", _PROGRAM, source, str(place.folder), str(place.logs)]
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
            cwd="/",
            timeout=_START_TIMEOUT_S,
            check=False,
            start_new_session=True,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return done.stderr.decode(errors="replace").strip()
