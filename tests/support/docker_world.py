"""A rehearsal's world with Docker hosts, held open for a test: its machines are reached from outside, or by SSH.

    lab-1  203.0.113.10 (site north)    a Docker host with images skyspan/busybox:1 and skyspan/node:1, containerlab
                                        and Compose; Docker drops what it does not know (FORWARD)
    lab-2  198.51.100.10 (site south)   another one, which forwarded before Docker came and goes on to
    client 203.0.113.20 (site north)    a plain machine

Starting it takes about five seconds, so a module's tests share one and clean up after themselves.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.support.cli import PATH, ROOT

from skyspan.contracts.host import Host
from skyspan.contracts.transport import Command
from skyspan.testing.gateway_world import Machine, Start
from skyspan.transports.ssh_connect import SshSettings

BUSYBOX, NODE = "skyspan/busybox:1", "skyspan/node:1"

DOCKER = {"docker": {"kind": "docker", "images": {BUSYBOX: "busybox", NODE: "node"}}}

HOSTS: Mapping[str, Any] = {
    "lab-1": {"site": "north", "address": "203.0.113.10", "services": DOCKER},
    "lab-2": {"site": "south", "address": "198.51.100.10", "forwards": True, "services": DOCKER},
    "client": {"site": "north", "address": "203.0.113.20"},
}

STARTS_S = 60

_CLONE_NEWNET = 0x40000000
_HELD = "echo ready; exec cat >/dev/null"


@dataclass(frozen=True)
class Inside(Machine):
    """A machine of the world as a `Transport`; it stays the same when the machine is rebooted."""

    world: DockerWorld | None = None

    def inside(self, command: Command) -> Command:
        """`command` to be run in the machine's namespaces, as its own daemons run."""
        assert self.world is not None
        enter = ("nsenter", "-t", str(self.world.pid(self.name)), "-m", "-u", "-i", "-n", "-p", "-C", "--")
        return replace(command, argv=(*enter, *command.argv))


@dataclass
class DockerWorld:
    """The world of one `skyspan rehearse exec`."""

    process: subprocess.Popen[bytes]
    section: Mapping[str, Any]
    said: list[bytes] = field(default_factory=list)

    @classmethod
    def start(cls, folder: Path, hosts: Mapping[str, Any] = HOSTS) -> DockerWorld:
        """Start it, with its composition in `folder`, and wait until it is there."""
        section = {
            "sites": {"north": {"prefix": "203.0.113.0/24"}, "south": {"prefix": "198.51.100.0/24"}},
            "hosts": hosts,
            "secrets": {"ssh_key": "generated"},
        }
        stages = {"one": {"uses": "command", "with": {"run": "true"}}}
        text = json.dumps({"skyspan": 1, "name": "labs", "stages": stages, "rehearsal": section})
        (folder / "skyspan.yaml").write_text(text)
        argv = [sys.executable, "-m", "skyspan", "--home", str(folder / "home"), "rehearse", "exec"]
        with (folder / "world.log").open("wb") as log:
            process = subprocess.Popen(
                [*argv, "-f", str(folder), "--", "sh", "-c", _HELD],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PATH": PATH, "SKYSPAN_TOOLS": str(ROOT / ".tools" / "bin")},
            )
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], STARTS_S)
        word = process.stdout.readline() if ready else b""
        if word != b"ready\n":
            process.kill()
            process.wait()
            raise AssertionError(f"the world does not start: {(folder / 'world.log').read_text()}")
        return cls(process, section)

    def close(self) -> None:
        """End it, and wait until nothing is left of it."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)
        self.process.stdout.close()

    def machines(self, here: Start) -> dict[str, Inside]:
        """The machines by name, entered from this one, on which `here` runs commands."""
        return {name: Inside(name, 0, here, self) for name in self.section["hosts"]}

    @property
    def hosts(self) -> dict[str, Host]:
        """The machines as a composition names them."""
        key = str(self._seen("run/skyspan/keys/ssh_key"))
        return {
            name: Host(name, host["address"], key_file=key)
            for name, host in self.section["hosts"].items()
            if "address" in host
        }

    @property
    def ssh(self) -> SshSettings:
        """How the machines are reached by SSH, in `network()`."""
        return SshSettings(known_hosts=self._seen("run/skyspan/known_hosts"))

    @contextlib.contextmanager
    def network(self) -> Iterator[None]:
        """This thread, and what it starts, is in the world's network where Skyspan runs: SSH finds the machines."""
        libc = ctypes.CDLL(None, use_errno=True)
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        theirs = os.open(f"/proc/{self._control()}/ns/net", os.O_RDONLY)
        try:
            assert libc.setns(theirs, _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            yield
        finally:
            assert libc.setns(own, _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            os.close(own)
            os.close(theirs)

    def run(self, *argv: str) -> str:
        """What a command says where Skyspan would run in the world."""
        control = self._control()
        environ = Path(f"/proc/{control}/environ").read_text().split("\0")
        enter = ["nsenter", "-t", str(control), "-m", "-u", "-i", "-n", "-p", "--"]
        env = dict(pair.split("=", 1) for pair in environ if pair)
        done = subprocess.run([*enter, *argv], env=env, capture_output=True, text=True)
        assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
        return done.stdout

    def fault(self, *words: str) -> None:
        """Let something befall the world: `reboot lab-1` and the like."""
        self.run(sys.executable, "-m", "skyspan.rehearsal", "fault", *words)

    def docker(self, machine: str, *words: str) -> str:
        """What the docker command says on a machine."""
        enter = ["nsenter", "-t", str(self.pid(machine)), "-m", "-u", "-i", "-n", "-p", "-C", "--"]
        done = subprocess.run([*enter, "docker", *words], capture_output=True, text=True, env={"PATH": PATH})
        assert done.returncode == 0, f"docker {words}: {done.stderr}"
        return done.stdout.strip()

    def pid(self, machine: str) -> int:
        """The first process of a machine, as seen here."""
        found = {
            pid: parent
            for pid, parent in self._descendants()
            if f'"name": "{machine}"' in (words := _words(pid)) and "firstprocess.py" in words
        }
        # The one that made the namespaces waits outside for the one that is first in them.
        return next(pid for pid, parent in found.items() if parent in found)

    def _control(self) -> int:
        return next(pid for pid, _ in self._descendants() if _words(pid) == "cat")

    def _seen(self, inner: str) -> Path:
        return Path(f"/proc/{self._control()}/root") / inner

    def _descendants(self) -> list[tuple[int, int]]:
        """The processes below ours, with their parents."""
        parents = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        ours, more = {self.process.pid}, True
        while more:
            below = {pid for pid, parent in parents.items() if parent in ours} - ours
            ours |= below
            more = bool(below)
        return [(pid, parents[pid]) for pid in sorted(ours) if pid in parents]


def _words(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    return ""
