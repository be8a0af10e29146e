"""Owns the way to a stage's forwarder: starts, finds, asks and ends it (a `contracts.forwarding.ForwarderControl`).

It is found by its socket, and told from other processes by its id with its start time and boot, and by its arguments:
the last one is its folder, which no other process has.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import skyspan
from skyspan.contracts.forwarding import ForwarderState, Forwarding, Trouble, TroubleKind
from skyspan.contracts.host import Host
from skyspan.model.address import StageAddress
from skyspan.model.error import SpecError, StageError
from skyspan.transports.forwarder.main import IDENTITY, LOG, SOCKET
from skyspan.transports.forwarder.order import Way, forwarding_record, state_of, trouble_of, way_record
from skyspan.transports.keeper.identity import alive, began, boot_id
from skyspan.transports.keeper.main import within
from skyspan.transports.ssh_connect import SshSettings

_MODULE = "skyspan.transports.forwarder.main"

_PROGRAM = f"""\
import sys
sys.path.insert(0, sys.argv[1])
from {_MODULE} import main
main(sys.argv[2])
"""

_ANSWER_TIMEOUT_S = 2.0
_CHANGE_TIMEOUT_S = 12.0
_START_TIMEOUT_S = 30.0
_GOODBYE_S = 6.0
_KILL_S = 2.0
_LOOK_AGAIN_S = 0.02


def forwarder_folder(home: Path, address: StageAddress) -> Path:
    """Where a stage's forwarder has its files: a short name, however long those of the stage are."""
    name = hashlib.sha256(str(address).encode()).hexdigest()[:16]
    return home.resolve() / "forwarders" / name


class StageForwarder:
    """The forwarder in `folder`, which reaches `hosts` as `ssh` says."""

    def __init__(self, folder: Path, hosts: Mapping[str, Host], ssh: SshSettings) -> None:
        self._folder, self._hosts, self._ssh = folder, hosts, ssh

    async def look(self) -> ForwarderState | None:
        return await self._look(_ANSWER_TIMEOUT_S)

    async def _look(self, patience_s: float) -> ForwarderState | None:
        try:
            answer = await self._ask({"op": "look"}, patience_s)
        except TimeoutError:
            mute = Trouble(TroubleKind.UNREACHABLE, "the forwarder does not answer", hint="skyspan up starts it anew")
            return ForwarderState(Forwarding("", ()), current=False, connected=False, connections=0, trouble=mute)
        if answer is None:
            return None
        through = answer["state"]["forwarding"]["through"]
        try:
            current = way_to(through, self._hosts, self._ssh).digest() == answer["way"]
        except SpecError:
            current = False
        return state_of(answer["state"], current=current)

    async def heard(self, name: str, after: int, timeout_s: float) -> Trouble | None:
        question = {"op": "heard", "name": name, "after": after, "timeout_s": timeout_s}
        try:
            answer = await self._ask(question, timeout_s + _ANSWER_TIMEOUT_S)
        except TimeoutError:
            answer = None
        if answer is None:
            return Trouble(TroubleKind.UNREACHABLE, "the forwarder does not run", hint="skyspan up starts it")
        return trouble_of(answer["trouble"])

    async def forward(self, forwarding: Forwarding, *, anew: bool = False) -> None:
        way = way_to(forwarding.through, self._hosts, self._ssh)
        # With patience: one that is only slow must not lose its sessions.
        state = None if anew else await self._look(_CHANGE_TIMEOUT_S)
        if state is not None and state.current and state.forwarding.through == forwarding.through:
            with contextlib.suppress(TimeoutError):
                question = {"op": "set", "forwarding": forwarding_record(forwarding)}
                if await self._ask(question, _CHANGE_TIMEOUT_S) is not None:
                    return
        # Its files stay: one of them tells what the host may still hold for us.
        await self._end_processes()
        await asyncio.to_thread(self._start, way, forwarding)

    async def reconnect(self) -> None:
        with contextlib.suppress(TimeoutError):
            await self._ask({"op": "reconnect"}, _ANSWER_TIMEOUT_S)

    async def _end_processes(self) -> None:
        before = self._processes()
        asked: dict[str, Any] | None = None
        with contextlib.suppress(TimeoutError):
            asked = await self._ask({"op": "end"}, _ANSWER_TIMEOUT_S)
        for pid, since in before.items():
            if asked is None:
                _signal(pid, since, signal.SIGTERM)
                # One that was stopped can only then do as it is told.
                _signal(pid, since, signal.SIGCONT)
            if not await _ended(pid, since, _GOODBYE_S):
                _signal(pid, since, signal.SIGKILL)
                if not await _ended(pid, since, _KILL_S):
                    raise StageError(f"the forwarder (process {pid}) does not end, even when it is killed")

    async def end(self) -> None:
        await self._end_processes()
        try:
            shutil.rmtree(self._folder)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise StageError(f"cannot remove {self._folder}: {error.strerror}") from error
        with contextlib.suppress(OSError):
            # The last one shuts the door.
            self._folder.parent.rmdir()

    async def _ask(self, question: Mapping[str, Any], timeout_s: float) -> dict[str, Any] | None:
        """What it answers; None when it does not run. Raises TimeoutError when it runs but stays silent."""
        async with asyncio.timeout(timeout_s):
            try:
                with within(str(self._folder)) as short:
                    reader, writer = await asyncio.open_unix_connection(f"{short}/{SOCKET}")
            except OSError:
                return None
            try:
                writer.write(json.dumps(question).encode() + b"\n")
                line = await reader.readline()
            except OSError:
                return None
            finally:
                writer.close()
            return dict(json.loads(line)) if line.endswith(b"\n") else None

    def _start(self, way: Way, forwarding: Forwarding) -> None:
        """Start it, and wait until it can be asked."""
        try:
            self._folder.parent.mkdir(mode=0o700, exist_ok=True)
            self._folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StageError(f"cannot make {self._folder}: {error.strerror}") from error
        order = {"way": way_record(way), "forwarding": forwarding_record(forwarding)}
        source = str(Path(skyspan.__file__).parent.parent)
        argv = [sys.executable, "-I", "-B", "-c", _PROGRAM, source, str(self._folder)]
        try:
            done = subprocess.run(
                argv,
                input=json.dumps(order).encode(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
                cwd="/",
                timeout=_START_TIMEOUT_S,
                check=False,
                start_new_session=True,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise StageError("the forwarder cannot be started", detail=str(error)) from None
        if done.returncode != 0:
            words = done.stderr.decode(errors="replace").strip().splitlines()[-5:]
            raise StageError(
                f"the forwarder did not start (exit status {done.returncode})",
                detail="\n".join(words),
                hint=f"check the disk and the permissions of {self._folder}, and its file {LOG!r}",
            )

    def _processes(self) -> dict[int, str]:
        """The forwarders of this folder, with their start times: the one that it names, and any that its arguments
        name, as the folder may be gone or of another."""
        found = {}
        with contextlib.suppress(OSError, ValueError, KeyError):
            known = json.loads((self._folder / IDENTITY).read_text())
            if known["boot"] == boot_id() and alive(known["pid"], known["began"]):
                found[int(known["pid"])] = str(known["began"])
        mark = str(self._folder).encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):
                    arguments = (entry / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
                    if arguments[-1] == mark and any(_MODULE.encode() in part for part in arguments[:-1]):
                        since = began(int(entry.name))
                        if since:
                            found[int(entry.name)] = since
        return found


def way_to(name: str, hosts: Mapping[str, Host], ssh: SshSettings) -> Way:
    """The way to the host `name`, over its jump hosts. Raises SpecError when it leads nowhere."""
    way: list[Host] = []
    here: str | None = name
    while here is not None:
        host = hosts.get(here)
        if host is None:
            raise SpecError(f"there is no host {here}", hint=f"known hosts: {', '.join(sorted(hosts)) or 'none'}")
        if host in way:
            raise SpecError(f"the jump hosts lead in a circle: {' -> '.join([*(one.name for one in way), here])}")
        way.insert(0, host)
        here = host.jump
    return Way(tuple(way), ssh)


def _signal(pid: int, since: str, number: int) -> None:
    if alive(pid, since):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


async def _ended(pid: int, since: str, within_s: float) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            while alive(pid, since):
                await asyncio.sleep(_LOOK_AGAIN_S)
    return not alive(pid, since)
