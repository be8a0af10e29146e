"""Tells processes and machines apart for good: by start time against reused ids, by boot against restarts."""

from __future__ import annotations

import os


def boot_id() -> str:
    """This boot of this machine."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123 - without pathlib, see main
        return file.read().strip()


def began(pid: int) -> str:
    """When a process started, in ticks since the boot; empty when it does not run, or only waits to be collected."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            fields = file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def alive(pid: int, since: str) -> bool:
    """Whether the process that started at `since` still runs."""
    return bool(pid) and bool(since) and began(pid) == since


def surroundings() -> tuple[str, ...]:
    """The namespaces that a process started here would be in: where it can reach, and what it sees."""
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
    return tuple(os.readlink(f"/proc/self/ns/{kind}") for kind in kinds)  # noqa: PTH115
