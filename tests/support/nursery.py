"""Engines by the hundred: each a process of its own, forked from one that has imported everything already."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.cli import PATH, ROOT, Cli, Ran, refuse_accidents

_SOURCE = """\
import gc, importlib, json, os, pkgutil, selectors, signal, sys

import skyspan
for module in pkgutil.walk_packages(skyspan.__path__, "skyspan."):
    if not any(word in module.name for word in ("__main__", "testing", "migrations")):
        importlib.import_module(module.name)
from skyspan.cli.main import main

def live(order):
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, path in ((0, os.devnull), (1, order["out"]), (2, order["err"])):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        os.dup2(os.open(path, flags, 0o600), number)
    os.closerange(3, 64)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    sys.argv = ["skyspan", *order["argv"]]
    status = 0
    try:
        main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1 if end.code else 0
    except BaseException:
        import traceback
        traceback.print_exc()
        status = 70
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)

def tell(**what):
    os.write(1, (json.dumps(what) + "\\n").encode())

ear, mouth = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
signal.signal(signal.SIGCHLD, lambda *_: None)
signal.set_wakeup_fd(mouth)
selector = selectors.DefaultSelector()
selector.register(0, selectors.EVENT_READ)
selector.register(ear, selectors.EVENT_READ)
gc.collect()
gc.freeze()
tell(ready=True)
rest, children = b"", 0
while True:
    for key, _ in selector.select():
        data = os.read(key.fd, 65536)
        if key.fd == ear:
            while children:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    break
                children -= 1
                tell(pid=pid, status=os.waitstatus_to_exitcode(status))
            continue
        if not data:
            os._exit(0)
        *lines, rest = (rest + data).split(b"\\n")
        for line in lines:
            order = json.loads(line)
            pid = os.fork()
            if not pid:
                live(order)
            children += 1
            tell(number=order["number"], pid=pid)
"""


@dataclass
class Engine:
    """One run of the command line."""

    pid: int
    folder: Path
    number: int
    began: float
    status: int | None = None
    over: threading.Event = field(default_factory=threading.Event)

    def signal(self, number: int) -> None:
        """Signal it, if it has not ended."""
        if not self.over.is_set():
            os.kill(self.pid, number)

    def ended(self, timeout_s: float = 120.0) -> Ran:
        """Wait for its end."""
        assert self.over.wait(timeout_s), f"{self.folder}: process {self.pid} does not end"
        assert self.status is not None
        out, err = ((self.folder / f"{self.number}.{end}").read_text() for end in ("out", "err"))
        ran = Ran(self.status, out, err, time.monotonic() - self.began)
        refuse_accidents(ran)
        return ran


class Nursery:
    """Starts engines; may be used by several threads. A context manager, which ends those that are left."""

    def __init__(self) -> None:
        env = {"PATH": PATH, "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"}
        env["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SOURCE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )
        self._lock = threading.Lock()
        self._count = 0
        self._born: dict[int, threading.Event] = {}
        self._pids: dict[int, int] = {}
        self._living: dict[int, Engine] = {}
        self._died: dict[int, int] = {}
        assert self._told() == {"ready": True}
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def __enter__(self) -> Nursery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for engine in list(self._living.values()):
            engine.signal(signal.SIGKILL)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._listener.join(30)
        self._process.stdout.close()

    def start(self, cli: Cli, *arguments: object, env: Mapping[str, str] | None = None) -> Engine:
        """Begin `skyspan` with these arguments in the home of `cli`."""
        with self._lock:
            self._count += 1
            number = self._count
            born = self._born[number] = threading.Event()
            order = {
                "number": number,
                "argv": ["--home", str(cli.home), *map(str, arguments)],
                "env": cli.env | dict(env or {}),
                "cwd": str(cli.folder),
                "out": str(cli.folder / f"{number}.out"),
                "err": str(cli.folder / f"{number}.err"),
            }
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        assert born.wait(30), "the nursery does not answer"
        with self._lock:
            engine = Engine(self._pids.pop(number), cli.folder, number, time.monotonic())
            if engine.pid in self._died:
                engine.status = self._died.pop(engine.pid)
                engine.over.set()
            else:
                self._living[engine.pid] = engine
        return engine

    def run(self, cli: Cli, *arguments: object, env: Mapping[str, str] | None = None) -> Ran:
        """Run it to its end."""
        return self.start(cli, *arguments, env=env).ended()

    def _told(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return dict(json.loads(line)) if line else {}

    def _listen(self) -> None:
        while told := self._told():
            with self._lock:
                if "number" in told:
                    self._pids[told["number"]] = told["pid"]
                    self._born[told["number"]].set()
                elif told["pid"] in self._living:
                    engine = self._living.pop(told["pid"])
                    engine.status = told["status"]
                    engine.over.set()
                else:
                    self._died[told["pid"]] = told["status"]
