"""The control groups of a world's machines: where they are made, and that none outlives its world.

A group is a folder of the kernel's, which stays when its processes have ended. So a world's groups are below one of its
name in every hierarchy, and the name says whose it is: what nobody lives for any more is removed by the next world.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MOUNTS = Path("/sys/fs/cgroup")
"""Where hierarchies are mounted, by convention."""

_REMOVE_S = 5.0
"""How long a group may stay busy after its last process was seen to end, in seconds; it takes milliseconds."""

_NAME = re.compile(r"skyspan-(\d+)-(\d+)")
_GENERAL = frozenset({"rw", "ro", "xattr", "clone_children", "nsdelegate", "memory_recursiveprot"})
"""Options that say nothing of which hierarchy it is."""


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A hierarchy that is mounted here. `name` is its folder below /sys/fs/cgroup, empty for the unified one; `options`
    are those by which it is mounted again."""

    mounted: Path
    name: str
    options: str


@dataclass(frozen=True, slots=True)
class Group:
    """A group of processes: its folder here, and what its hierarchy is mounted with elsewhere."""

    folder: Path
    name: str
    options: str


def hierarchies(mountinfo: str) -> tuple[Hierarchy, ...]:
    """The hierarchies of controllers in the text of /proc/self/mountinfo, whose fields proc(5) names.

    Where the unified one is mounted beside others it has no controllers, and is left alone.
    """
    found: dict[str, Hierarchy] = {}
    for line in mountinfo.splitlines():
        place, _, rest = line.partition(" - ")
        mounted, (kind, _, options) = Path(place.split()[4]), rest.split()[:3]
        if kind == "cgroup2" and mounted == MOUNTS:
            return (Hierarchy(mounted, "", ""),)
        if kind == "cgroup" and mounted.parent == MOUNTS:
            which = [option for option in options.split(",") if option not in _GENERAL and "=" not in option]
            # One without controllers is told by its name, and has to be said to have none.
            named = [f"none,{option}" for option in options.split(",") if option.startswith("name=") and not which]
            found[mounted.name] = Hierarchy(mounted, mounted.name, ",".join(which + named))
    return tuple(found.values())


def here() -> tuple[Hierarchy, ...]:
    """Those of this machine."""
    return hierarchies(Path("/proc/self/mountinfo").read_text())


def own_name(pid: int) -> str:
    """The name of the groups of a world that lives as long as the process `pid`."""
    return f"skyspan-{pid}-{_started(pid)}"


def make(found: Iterable[Hierarchy], world: str, machine: str) -> tuple[Group, ...]:
    """Fresh groups for a machine, in every hierarchy; those that it had are removed, its processes having ended."""
    groups = []
    for one in found:
        top, own = one.mounted / world, one.mounted / world / machine
        remove(own)
        top.mkdir(exist_ok=True)
        _provide(one.mounted, top)
        own.mkdir()
        _provide(top, own)
        groups.append(Group(own, one.name, one.options))
    return tuple(groups)


def remove(group: Path) -> None:
    """Remove a group with all below it, whose processes were seen to end; absent is done.

    Raises OSError (EBUSY) when there still are some.
    """
    deadline = time.monotonic() + _REMOVE_S
    while group.is_dir():
        try:
            for folder, _, _ in os.walk(group, topdown=False):
                os.rmdir(folder)  # noqa: PTH106
        except FileNotFoundError:
            continue
        except OSError as busy:
            if busy.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.005)


def sweep(found: Iterable[Hierarchy], own: str = "") -> None:
    """Remove the groups of worlds that are gone, and of the world `own`; what cannot be removed waits for the next."""
    for one in found:
        for group in _worlds(one.mounted):
            if group.name == own or not (_lives(group.name) or _busy(group)):
                with suppress(OSError):
                    remove(group)


def _worlds(mounted: Path) -> Iterator[Path]:
    with suppress(OSError):
        yield from [folder for folder in mounted.iterdir() if _NAME.fullmatch(folder.name)]


def _lives(name: str) -> bool:
    """Whether the process is there whose id and start the name says."""
    said = _NAME.fullmatch(name)
    assert said is not None, "the names were matched"
    with suppress(OSError):
        return _started(int(said[1])) == said[2]
    return False


def _busy(group: Path) -> bool:
    """Whether there is a process in a group or below: ids mean something else in other namespaces, so ask twice."""
    for folder, _, _ in os.walk(group):
        try:
            if (Path(folder) / "cgroup.procs").read_text().strip():
                return True
        except FileNotFoundError:
            continue
        except OSError:  # a group of threads does not tell
            return True
    return False


def _started(pid: int) -> str:
    """When a process started, in clock ticks since boot: field 22 of /proc/PID/stat (proc(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def _provide(above: Path, group: Path) -> None:
    """Let a group have what it needs before a process can be in it: processors and memory (cpuset), or controllers."""
    for setting in ("cpuset.cpus", "cpuset.mems"):
        with suppress(FileNotFoundError):
            # The unified hierarchy has these files too; there nothing written is everything.
            if not (group / "cgroup.controllers").exists() and not (group / setting).read_text().strip():
                (group / setting).write_text((above / setting).read_text())
    with suppress(FileNotFoundError):
        for controller in (above / "cgroup.controllers").read_text().split():
            with suppress(OSError):  # not every controller can be given on; a daemon says itself what it misses
                (above / "cgroup.subtree_control").write_text(f"+{controller}")
