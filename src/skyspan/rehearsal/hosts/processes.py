"""The processes of one stand-in, as the world sees them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

from skyspan.model.error import UsageError
from skyspan.rehearsal.hosts.machine import SSHD_SETTINGS_FILE, Machine

_CONFIGURED = Path(SSHD_SETTINGS_FILE).name.encode()
"""By this in its command line a machine's own sshd is told, which its first process started."""

_PASSING = ("sshd: ",)
"""Processes that come and go with connections."""


def kill(machine: Machine, program: str) -> None:
    """Kill every process of that name on a machine, but not its init and sshd; raises UsageError if none is there."""
    found = [pid for pid, name in programs(machine) if name == program]
    if not found:
        running = ", ".join(sorted({name for _, name in programs(machine)}))
        raise UsageError(f"no {program} runs on {machine.name}", hint=f"there are: {running or 'none'}")
    for pid in found:
        os.kill(pid, signal.SIGKILL)


def programs(machine: Machine) -> Iterator[tuple[int, str]]:
    """The processes in a machine's own PID namespace with the names of their programs; without its init and sshd."""
    for pid, words in _others(machine.pid):
        try:
            if words[0] and not (_CONFIGURED in b"\0".join(words) and _parent(pid) == machine.pid):
                yield pid, Path(words[0].decode(errors="replace").partition(" ")[0].rstrip(":")).name
        except OSError:
            continue  # it ended while we looked


def processes(first: int) -> Iterator[str]:
    """The processes of the machine whose first process is `first`, besides that one and passing ones."""
    for _, words in _others(first):
        command = b" ".join(words).decode(errors="replace").strip()
        if command and not command.startswith(_PASSING):
            yield f"process {command}"


def _others(first: int) -> Iterator[tuple[int, list[bytes]]]:
    """The processes in the PID namespace of `first`, besides that one, with their command lines."""
    namespace = Path(f"/proc/{first}/ns/pid").readlink()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == first:
            continue
        try:
            if (entry / "ns/pid").readlink() == namespace:
                yield int(entry.name), (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended while we looked


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
