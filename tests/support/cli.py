"""The real command line as child processes, each with a home of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import site
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PATH = f"{ROOT / '.tools' / 'bin'}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

# None of these may ever reach a person who did nothing wrong in Python.
_ACCIDENTS = ("Traceback (most recent call last)", "was never awaited", "ResourceWarning", "internal error")


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    status: int
    out: str
    err: str
    took_s: float = 0.0

    @property
    def document(self) -> Any:
        """Standard output, which must be exactly one JSON document."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """Standard output, which must be one JSON document per line."""
        return [json.loads(line) for line in self.out.splitlines()]

    def stages(self) -> dict[str, str]:
        """Status by stage, from a run's document."""
        return {stage["name"]: stage["status"] for stage in self.document["stages"]}

    def changes(self) -> dict[str, str]:
        """Change by stage, from a plan's or a run's document."""
        return {stage["name"]: stage["change"] for stage in self.document["stages"]}

    def error(self, stage: str) -> dict[str, str]:
        """Why the stage failed, from a run's document."""
        [found] = [item["error"] for item in self.document["stages"] if item["name"] == stage]
        return dict(found)


@dataclass
class Cli:
    """`skyspan` with a home, a user's home and a folder for temporary files below `folder`."""

    folder: Path
    python: str = sys.executable
    env: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("user", "tmp"):
            (self.folder / name).mkdir(exist_ok=True)
        self.env = {
            "PATH": PATH,
            "HOME": str(self.folder / "user"),
            "TMPDIR": str(self.folder / "tmp"),
            "LC_ALL": "C.UTF-8",
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]),
        } | self.env

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def database(self) -> Path:
        return self.home / "skyspan.db"

    def compose(self, text: str, name: str = "app") -> Path:
        """Write a composition called `name` into a folder of that name; `text` is what follows its head."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        head = "" if text.lstrip().startswith("skyspan:") else f"skyspan: 1\nname: {name}\n"
        (folder / "skyspan.yaml").write_text(head + text)
        return folder

    def argv(self, *arguments: object) -> list[str]:
        return [self.python, "-m", "skyspan", "--home", str(self.home), *map(str, arguments)]

    def __call__(
        self,
        *arguments: object,
        stdin: str = "",
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
        accidents: bool = False,
    ) -> Ran:
        """Run it to its end, without a terminal."""
        began = time.monotonic()
        done = subprocess.run(
            self.argv(*arguments),
            input=stdin,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            cwd=cwd or self.folder,
            env=self.env | dict(env or {}),
            timeout=timeout_s,
        )
        ran = Ran(done.returncode, done.stdout, done.stderr, time.monotonic() - began)
        if not accidents:
            refuse_accidents(ran)
        return ran

    def json(self, *arguments: object, **more: Any) -> Ran:
        """The same with `--json`."""
        return self("--json", *arguments, **more)

    def up(self, composition: Path, *arguments: object, **more: Any) -> Ran:
        """`up --yes` with its JSON document."""
        return self.json("up", "-f", composition, "--yes", *arguments, **more)

    def plan(self, composition: Path, *arguments: object, **more: Any) -> Ran:
        """`plan` with its JSON document."""
        return self.json("plan", "-f", composition, *arguments, **more)

    def start(self, *arguments: object, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Begin it and go on; `stop_all` ends what is left. It leads a process group of its own."""
        process = subprocess.Popen(
            self.argv(*arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=self.env | dict(env or {}),
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def stop_all(self) -> None:
        """Kill what was started and has not ended."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
            with contextlib.suppress(ValueError):
                process.communicate()


def ended(process: subprocess.Popen[str], timeout_s: float = 60.0) -> Ran:
    """Wait for its end."""
    began = time.monotonic()
    out, err = process.communicate(timeout=timeout_s)
    ran = Ran(process.returncode, out, err, time.monotonic() - began)
    refuse_accidents(ran)
    return ran


def refuse_accidents(ran: Ran) -> None:
    """Whatever the trouble was, it was foreseen."""
    for accident in _ACCIDENTS:
        assert accident not in ran.out + ran.err, f"{accident}:\n{ran.out}\n{ran.err}"


def until(true: Callable[[], object], what: str, timeout_s: float = 30.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process runs (a dead one that nobody waited for does not)."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


@contextlib.contextmanager
def ending(pid_file: Path) -> Iterator[None]:
    """Afterwards the process that wrote its id to `pid_file` is gone."""
    try:
        yield
    finally:
        if pid_file.exists():
            with contextlib.suppress(ProcessLookupError, ValueError):
                os.kill(int(pid_file.read_text()), signal.SIGKILL)


def python_without_tools(folder: Path) -> tuple[str, dict[str, str]]:
    """An interpreter whose installation has no folder of tools beside it, and the environment that it needs."""
    (folder / "bin").mkdir(parents=True)
    base = Path(sys.base_prefix) / "bin"
    (folder / "pyvenv.cfg").write_text(f"home = {base}\ninclude-system-site-packages = false\n")
    python = folder / "bin" / "python"
    python.symlink_to(Path(sys.executable).resolve())
    packages = [*site.getsitepackages(), str(ROOT / "src")]
    return str(python), {"PYTHONPATH": os.pathsep.join(packages)}
