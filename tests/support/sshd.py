"""Real SSH servers on loopback, each with keys, settings and a port of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

USER = os.environ.get("USER") or "root"


def make_key(path: Path, kind: str = "ed25519") -> str:
    """A key pair at `path`; returns the public half without its comment."""
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "", "-f", path], check=True)
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _answers(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class Sshd:
    """A server that lets the key `user_key` in its folder log in as whoever runs the test."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    extra: str = ""

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.host_key = make_key(self.folder / "host_key")
        (self.folder / "authorized_keys").write_text(make_key(self.folder / "user_key") + "\n")
        self.start()

    def start(self) -> None:
        """Listen, and wait until it does."""
        # Where sshd separates its privileges; the system's service makes it too.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        settings = self.folder / "sshd_config"
        settings.write_text(
            f"ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {self.folder}/host_key\nPidFile none\n"
            f"AuthorizedKeysFile {self.folder}/authorized_keys\nStrictModes no\nUsePAM no\nLogLevel ERROR\n"
            f"PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n"
            f"Subsystem sftp internal-sftp\n{self.extra}"
        )
        program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program, "sshd is needed: install openssh-server"
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([program, "-D", "-e", "-f", settings], stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not _answers(self.port):
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def sessions(self) -> list[int]:
        """The processes that serve connections."""
        assert self.process is not None
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in found.split()]

    def stop(self) -> None:
        """Stop it and every connection; stopped is success."""
        if self.process is None or self.process.returncode is not None:
            return
        for pid in (*self.sessions(), self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(10)

    def declaration(self, **more: str) -> str:
        """The host as a composition declares it, in one line."""
        key = self.folder / "user_key"
        fields = {
            "address": "127.0.0.1",
            "port": str(self.port),
            "user": USER,
            "key_file": str(key),
            "host_key": f'"{self.host_key}"',
        } | more
        return "{" + ", ".join(f"{name}: {value}" for name, value in fields.items() if value) + "}"
