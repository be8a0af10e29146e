"""One stand-in machine: its files, its first process, and commands run inside it."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from skyspan.contracts.transport import Command, Process, Spawner, StopLadder, Stream
from skyspan.model.error import ToolFailedError
from skyspan.rehearsal.isolation import firstprocess
from skyspan.rehearsal.isolation.cgroups import Group
from skyspan.rehearsal.isolation.firstprocess import LOGIN_ENVIRONMENT
from skyspan.rehearsal.programs import BOOT_S, standard

OWN_FOLDERS = (("root", 0o700), ("home", 0o755), ("tmp", 0o1777), ("run", 0o755), ("var/tmp", 0o1777))
"""Folders of which a stand-in sees nothing of this machine's."""

SSHD_SETTINGS_FILE = "/etc/ssh/stand_in_sshd_config"

ABSENT = "var/lib/skyspan"
"""Where a host keeps what belongs to its stages: what this machine has there, at any moment, is not the stand-in's."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A stand-in that runs. `pid` is its first process, as the world sees it; `contained`: it has control groups of
    its own."""

    name: str
    folder: Path
    pid: int
    process: Process
    contained: bool = False

    @property
    def changes(self) -> Path:
        """The folder that holds everything that differs from this machine's files."""
        return self.folder / "upper"

    def command(self, *argv: str) -> tuple[str, ...]:
        """`argv` to be run inside the machine."""
        more = ("-C",) if self.contained else ()
        return ("nsenter", "-t", str(self.pid), "-m", "-u", "-i", "-n", "-p", *more, "--", *argv)

    def daemon(self, *argv: str) -> tuple[str, ...]:
        """`argv` to be run inside the machine as its init would: without our environment."""
        return self.command("env", "-i", *(f"{name}={value}" for name, value in LOGIN_ENVIRONMENT.items()), *argv)


@dataclass(frozen=True, slots=True)
class Belongings:
    """What a machine has besides this machine's files: the folder `tools` laid over them, folders bound over its own by
    their paths inside, and control groups."""

    tools: Path
    binds: Mapping[str, Path] = field(default_factory=dict)
    groups: tuple[Group, ...] = ()


def furnish(folder: Path, own: Mapping[str, str], private: tuple[str, ...] = ()) -> None:
    """Write what the machine has of its own before it boots: `own` are texts by path, identity, names and keys.

    Of the folders `private` it sees nothing of this machine's either.
    """
    upper = folder / "upper"
    for part in ("upper", "work", "root"):
        (folder / part).mkdir(parents=True)
    for inner, mode in (*OWN_FOLDERS, *((name, 0o755) for name in private)):
        own_folder = upper / inner
        own_folder.mkdir(parents=True, exist_ok=True)
        own_folder.chmod(mode)
        os.setxattr(own_folder, "trusted.overlay.opaque", b"y")
    (upper / "run/sshd").mkdir(mode=0o755)
    (upper / ABSENT).parent.mkdir(parents=True, exist_ok=True)
    # Such a device is how an overlay remembers that something is not there.
    os.mknod(upper / ABSENT, stat.S_IFCHR, os.makedev(0, 0))
    for name, text in own.items():
        _write(upper / name, text, 0o600 if name.endswith("_key") else 0o644)
    _write(upper / SSHD_SETTINGS_FILE.lstrip("/"), sshd_settings())
    _write(upper / "etc/shadow", _unlocked(Path("/etc/shadow").read_text(errors="replace")), 0o640)


def forget_running(folder: Path) -> None:
    """Empty what does not outlive a machine's run: /run and /tmp. To be called while it is down."""
    for name in ("run", "tmp"):
        for entry in (folder / "upper" / name).iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    (folder / "upper/run/sshd").mkdir(mode=0o755)


async def boot(name: str, folder: Path, own: Belongings, sshd: str, spawner: Spawner) -> Machine:
    """Start a furnished machine with what belongs to it; raises ToolFailedError with its last words."""
    said = bytearray()
    up = asyncio.get_running_loop().create_future()

    def listen(stream: Stream, data: bytes) -> None:
        said.extend(data)
        if stream is Stream.OUT and b"\n" in data and not up.done():
            up.set_result(int(said.split(b"\n")[-2]))

    request = {
        "name": name,
        "folder": str(folder),
        "tools": str(own.tools),
        "binds": {inner: str(source) for inner, source in own.binds.items()},
        "cgroups": [{"group": str(one.folder), "name": one.name, "options": one.options} for one in own.groups],
        "argv": [sshd, "-D", "-E", "/var/log/sshd.log", "-f", SSHD_SETTINGS_FILE],
    }
    argv = standard(firstprocess, json.dumps(request))
    process = await spawner.start(Command(argv, ladder=StopLadder(first_s=0.5, second_s=0.5)), listen)
    ended = asyncio.ensure_future(process.wait())
    try:
        await asyncio.wait({ended, up}, timeout=BOOT_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ended.cancel()
    if not up.done():
        await process.stop()
        raise ToolFailedError(
            f"the stand-in {name} did not start",
            detail=said.decode(errors="replace"),
            hint="`skyspan doctor` says what a rehearsal needs",
        )
    return Machine(name, folder, up.result(), process, bool(own.groups))


def quoted(argv: tuple[str, ...]) -> str:
    """`argv` as a shell line."""
    return " ".join(shlex.quote(word) for word in argv)


def sshd_settings() -> str:
    """The stand-ins' sshd_config: keys only, no look-ups, room for many connections at once."""
    return """Port 22
HostKey /etc/ssh/ssh_host_ed25519_key
AuthorizedKeysFile /etc/ssh/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
StrictModes no
PidFile none
PrintMotd no
MaxStartups 100
MaxSessions 100
ClientAliveInterval 5
ClientAliveCountMax 3
AllowTcpForwarding yes
Subsystem sftp internal-sftp
"""


def _unlocked(shadow: str) -> str:
    """Sshd refuses an account that is locked with `!`, even with a key; `*` only means that no password fits."""
    lines = []
    for line in shadow.splitlines():
        name, *rest = line.split(":")
        lines.append(":".join([name, "*", *rest[1:]]) if rest and rest[0].startswith("!") else line)
    return "\n".join(lines) + "\n"


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=mode)
    path.chmod(mode)
    path.write_text(text)
