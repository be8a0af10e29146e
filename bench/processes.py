"""Runs one process to its end, bounded, and says what it cost."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_TAIL = 1500


class BrokenRunError(Exception):
    """A process that should have succeeded did not: its numbers mean nothing."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One finished process. `cpu_s` is user + system time, its children's included."""

    wall_s: float
    cpu_s: float
    stdout: str
    began_at: float


def run(
    argv: Sequence[str | Path], folder: Path, env: Mapping[str, str], *, timeout_s: float = 300.0, expect: int = 0
) -> Sample:
    """Run to the end. Raises BrokenRunError for another exit status than `expect`, and after `timeout_s`."""
    with (folder / ".stdout").open("w+") as out, (folder / ".stderr").open("w+") as err:
        began_at, started = time.time(), time.perf_counter()
        process = start(argv, folder, env, out.fileno(), err.fileno())
        timer = threading.Timer(timeout_s, end, (process.pid, signal.SIGKILL))
        timer.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            end(process.pid, signal.SIGKILL)
            process.wait()
            raise
        finally:
            timer.cancel()
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        if process.returncode != expect:
            err.seek(0)
            said = (out.read() + err.read())[-_TAIL:]
            took = f"{process.returncode} after {wall:.1f} s, {expect} expected"
            raise BrokenRunError(f"{' '.join(map(str, argv))}: exit status {took}\n{said}")
        return Sample(wall, usage.ru_utime + usage.ru_stime, out.read(), began_at)


def start(
    argv: Sequence[str | Path],
    folder: Path,
    env: Mapping[str, str],
    out: int = subprocess.DEVNULL,
    err: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start a process in a group of its own; the caller waits for it."""
    return subprocess.Popen(
        [str(part) for part in argv],
        cwd=folder,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=err,
        start_new_session=True,
    )


def end(pid: int, number: int) -> None:
    """Send a signal to the group of a process that `start` made; harmless when it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def peak_memory_mb(pid: int) -> float | None:
    """The most that the process ever had resident (VmHWM), in MB; None when it is gone.

    Not `ru_maxrss`: that begins with the size of the process that forked it."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    return None
