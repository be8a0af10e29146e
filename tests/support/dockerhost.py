"""A real Docker daemon in namespaces of its own, with images made here: nothing of it is left when it is closed."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

IMAGE = "skyspan/busybox:1"
"""Busybox alone, its applets as links; runs `sh`."""

TOOLS = Path(__file__).parents[2] / ".tools/bin"
"""Where `docker-compose` is."""

ENV = {"PATH": f"{TOOLS}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
"""The environment in which the tools are found."""

_APPLETS = ("sh", "ip", "ping", "sleep", "cat", "echo", "httpd", "wget", "true", "false", "ls", "kill", "id")

_BUILT_IN = ("bridge", "host", "none")
"""Networks that every daemon has, under ids of their own after each start."""

_QUICK = "/dev/shm"
"""Memory: a daemon waits for its disk at every step."""

_START = """
ip link set lo up
export LISTEN_PID=$$
exec "$@"
"""


def busybox_image(name: str = IMAGE, *, more: dict[str, str] | None = None) -> bytes:
    """A root folder of busybox as a tar archive for `docker import`; `more` are files besides."""
    told = io.BytesIO()
    program = shutil.which("busybox")
    assert program, "busybox is needed: install busybox-static"
    with tarfile.open(fileobj=told, mode="w") as archive:
        for folder in ("bin", "etc", "tmp", "proc", "sys", "dev", "www"):
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(info)
        archive.add(Path(program).resolve(), "bin/busybox")
        for applet in _APPLETS:
            info = tarfile.TarInfo(f"bin/{applet}")
            info.type, info.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(info)
        for path, text in {"etc/passwd": "root:x:0:0::/:/bin/sh\n", **(more or {})}.items():
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(text), 0o644
            archive.addfile(info, io.BytesIO(text.encode()))
    return told.getvalue()


class _Caller(http.client.HTTPConnection):
    """HTTP over a socket of this machine: many looks of a test cost no process."""

    def __init__(self, path: str) -> None:
        super().__init__("docker")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


@dataclass
class DockerHost:
    """A daemon with its socket at `socket_path`; with `tls`, also on 127.0.0.1 at `port`, for clients with `client`'s
    certificate only. Its containers' networks are in a namespace of their own: only addresses of this machine's
    loopback that it listens on by itself can be reached from here, and none of the containers'."""

    folder: Path
    tls: bool = False
    process: subprocess.Popen[bytes] | None = None
    listener: socket.socket | None = None
    port: int = 0
    client: dict[str, str] = field(default_factory=dict)
    stranger: dict[str, str] = field(default_factory=dict)

    @classmethod
    def start(cls, *, tls: bool = False) -> DockerHost:
        """A daemon that answers and has `IMAGE`. Its folder is short: a socket's path has 107 bytes at most."""
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            # A shell makes its background deaf to interrupts, and commands inherit it: none could be cancelled.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        made = cls(Path(tempfile.mkdtemp(prefix="sk-docker-", dir=_QUICK if Path(_QUICK).is_dir() else None)), tls)
        try:
            made.begin()
            made.run("import", "-c", 'CMD ["/bin/sh"]', "-", IMAGE, given=busybox_image())
        except BaseException:
            made.close()
            raise
        return made

    @property
    def endpoint(self) -> str:
        return f"unix://{self.folder}/docker.sock"

    @property
    def namespace(self) -> str:
        """The network namespace that the daemon is in."""
        return f"/proc/{self._daemon()}/ns/net"

    def begin(self) -> None:
        """Start the daemon on what its folder holds, and wait for it."""
        argv = [
            "unshare", "--net", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child",
            "--mount-proc", "sh", "-euc", _START, "skyspan",
            _program("dockerd"), "--data-root", f"{self.folder}/data", "--exec-root", f"{self.folder}/exec",
            "-H", self.endpoint, "--pidfile", f"{self.folder}/pid", "--bip", "172.31.250.1/24",
            "--config-file", f"{self.folder}/daemon.json", "--shutdown-timeout", "1",
        ]  # fmt: skip
        (self.folder / "daemon.json").write_text("{}")
        env = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
        passed: tuple[int, ...] = ()
        if self.tls:
            argv += ["-H", "fd://", "--tlsverify", *self._certificates()]
            self.listener = socket.create_server(("127.0.0.1", self.port))
            self.port = self.listener.getsockname()[1]
            # The descriptor of a socket that systemd would hand over is 3 (sd_listen_fds(3)).
            env["LISTEN_FDS"] = "1"
            passed = (self.listener.fileno(),)
            argv = ["bash", "-c", f'exec "$@" 3<&{passed[0]}', "bash", *argv]
        (self.folder / "pid").unlink(missing_ok=True)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                argv, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=passed, start_new_session=True
            )
        deadline = time.monotonic() + 30
        while subprocess.run(["docker", "-H", self.endpoint, "version"], capture_output=True).returncode:
            assert self.process.poll() is None, (self.folder / "log").read_text()[-3000:]
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-3000:]
            time.sleep(0.05)

    def run(self, *words: str, given: bytes | None = None, check: bool = True) -> str:
        """What the docker command says."""
        done = subprocess.run(["docker", "-H", self.endpoint, *words], input=given, capture_output=True)
        assert done.returncode == 0 or not check, done.stderr.decode()
        return done.stdout.decode().strip()

    def state(self) -> dict[str, Any]:
        """Everything there is, by what makes it what it is: containers with their start, networks, volumes, links."""
        containers = [self.ask(f"/containers/{one['Id']}/json") for one in self.ask("/containers/json?all=1")]
        networks = self.ask("/networks")
        links = Path(f"/proc/{self._daemon()}/net/dev").read_text().splitlines()[2:]
        return {
            "containers": sorted(
                (
                    one["Id"],
                    one["Name"],
                    one["State"]["Status"],
                    one["State"]["StartedAt"],
                    *one["NetworkSettings"]["Networks"],
                )
                for one in containers
            ),
            "networks": sorted((one["Id"], one["Name"]) for one in networks if one["Name"] not in _BUILT_IN),
            "volumes": sorted(one["Name"] for one in self.ask("/volumes")["Volumes"] or ()),
            "images": sorted((one["Id"], *(one["RepoTags"] or ())) for one in self.ask("/images/json")),
            "links": sorted(line.partition(":")[0].strip() for line in links),
        }

    def ask(self, path: str) -> Any:
        """What the daemon's API answers."""
        with contextlib.closing(_Caller(f"{self.folder}/docker.sock")) as caller:
            caller.request("GET", f"/v1.40{path}")
            return json.loads(caller.getresponse().read())

    def clear(self) -> None:
        """Remove every container, network and volume."""
        seen = self.state()
        if seen["containers"]:
            self.run("rm", "-f", "-v", *(one[0] for one in seen["containers"]))
        if seen["networks"]:
            self.run("network", "rm", *(one[0] for one in seen["networks"]))
        if seen["volumes"]:
            self.run("volume", "rm", "-f", *seen["volumes"])

    def halt(self) -> None:
        """End the daemon and everything that it runs, at once, as a power cut would."""
        if self.process is not None and self.process.poll() is None:
            # The namespace's first process takes all others with it.
            os.kill(self._first(), signal.SIGKILL)
            self.process.wait()
            # What is of the last boot: a process of the next one may well get the id that containerd had.
            shutil.rmtree(self.folder / "exec", ignore_errors=True)
        if self.listener is not None:
            self.listener.close()
            self.listener = None

    def close(self) -> None:
        self.halt()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _daemon(self) -> str:
        """A process in the daemon's network namespace."""
        return Path(f"/proc/{self._first()}/task/{self._first()}/children").read_text().split()[0]

    def _first(self) -> int:
        assert self.process is not None
        return self.process.pid

    def _certificates(self) -> list[str]:
        if not self.client:
            from tests.support.certificates import authority

            ours, others = authority("engine"), authority("others")
            server = ours.issue("127.0.0.1", server=True)
            for name, text in {"ca": ours.certificate, "cert": server.certificate, "key": server.key}.items():
                (self.folder / f"{name}.pem").write_text(text)
            client = ours.issue("client")
            self.client = {"ca": ours.certificate, "certificate": client.certificate, "key": client.key}
            wrong = others.issue("client")
            self.stranger = {"ca": ours.certificate, "certificate": wrong.certificate, "key": wrong.key}
        folder = self.folder
        return ["--tlscacert", f"{folder}/ca.pem", "--tlscert", f"{folder}/cert.pem", "--tlskey", f"{folder}/key.pem"]


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert found, f"{name} is needed: install docker.io"
    return found
