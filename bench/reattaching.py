"""How fast an engine takes up a run whose engine was killed while its command went on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from bench.compositions import command, composition
from bench.processes import BrokenRunError, start
from bench.report import SELF, Measure, Row
from bench.rounds import alternate
from bench.world import World

_PATIENCE_S = 30.0
_WAITS = "echo $$ > pid.new; mv pid.new pid; while [ ! -e go ]; do sleep 0.01; done"


def reattach(world: World) -> Measure:
    """`skyspan resume`, start to exit, when the command has just ended; beside `status`, which only looks."""
    subjects = {f"{SELF} resume": partial(_resume, world), f"{SELF} status": partial(_status, world)}
    found = alternate(subjects, world.rounds(9, quick=3))
    rows = tuple(Row(name, 1000 * median(values)) for name, values in found.items())
    return Measure("Take up a run whose engine was killed, and end it", "ms", rows, "<= 5000 ms")


def _resume(world: World) -> float:
    folder, home, pid = _killed(world)
    (folder / "go").touch()
    _until(lambda: not Path(f"/proc/{pid}").exists(), "the command has ended")
    return world.sky("resume", "bench", home=home).wall_s


def _status(world: World) -> float:
    _, home, pid = _killed(world)
    took = world.sky("status", "bench", home=home).wall_s
    os.kill(pid, signal.SIGKILL)
    return took


def _killed(world: World) -> tuple[Path, Path, int]:
    """A run whose engine was killed while its command waits for the file `go`: folder, home, the command's id."""
    home = world.fresh("home")
    folder = world.composition("killed", composition([command("wait", ["sh", "-c", _WAITS])]))
    engine = start([world.skyspan, "--home", home, "up", "--yes", "-f", folder], folder, world.env)
    _until((folder / "pid").exists, "the command runs")
    engine.kill()
    engine.wait()
    return folder, home, int((folder / "pid").read_text())


def _until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not true():
        if time.monotonic() > deadline:
            raise BrokenRunError(f"never: {what}")
        time.sleep(0.005)
