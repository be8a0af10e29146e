"""The first process of a set of namespaces: makes them, mounts what belongs in them, reaps, and takes all with it.

Standard library only, and runnable by path: a stand-in machine's init is this file, started without site packages so
that it is up in a few milliseconds. Constants are those of the Linux headers <sched.h>, <sys/mount.h>, <sys/prctl.h>.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
ALL = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET

MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MNT_DETACH = 0x2
PR_SET_PDEATHSIG = 1

LOGIN_ENVIRONMENT = MappingProxyType(
    {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
)
"""What a stand-in's daemons have; nothing of the environment in which the world was made."""

FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


def call(name: str, *arguments: object) -> None:
    """Call a function of the C library that returns -1 and sets errno; raises OSError naming it."""
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def mount(kind: str, source: str, target: Path | str, flags: int = 0, options: str = "") -> None:
    """mount(2); an empty `kind` is for bind mounts and changes of propagation."""
    call(
        "mount",
        source.encode(),
        str(target).encode(),
        kind.encode() or None,
        ctypes.c_ulong(flags),
        options.encode() or None,
    )


def die_with_parent() -> None:
    """Be killed when the parent ends, however it ends.

    A parent that ended before the kernel was told is noticed by writing to a pipe that only it reads.
    """
    call("prctl", PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)


def reap_until(child: int) -> int:
    """What process 1 does: forward signals to `child`, collect orphans, and return the exit status of `child`.

    A Ctrl-C on a terminal reaches the whole foreground group by itself, so there it is not forwarded as well.
    """
    from_terminal = os.isatty(0)

    def forward(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and from_terminal:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in FORWARDED:
        signal.signal(number, forward)
    while True:
        pid, status = os.wait()
        if pid == child:
            return exit_status(status)


def exit_status(status: int) -> int:
    """A wait status as a shell reports it: 128 and the signal's number for a killed process."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def isolate(
    prepare: Callable[[], None], argv: Sequence[str], environ: Mapping[str, str], ready: int | None = None
) -> int:
    """Make namespaces, and in them a first process that runs `prepare`, then `argv` as its child; wait for the end.

    Everything in them dies with the calling process. `ready` is a file descriptor that gets the first process's pid
    as a line once `argv` runs. Returns the exit status of `argv`; `prepare` failing is 125 with a word on stderr.
    """
    call("unshare", ALL)
    told, tell = os.pipe()
    first = os.fork()
    if first == 0:
        os.close(told)
        _be_first(prepare, argv, environ, tell)
    os.close(tell)
    if os.read(told, 1) and ready is not None:
        os.write(ready, f"{first}\n".encode())
    os.close(told)
    return reap_until(first)


def _be_first(prepare: Callable[[], None], argv: Sequence[str], environ: Mapping[str, str], tell: int) -> None:
    """The life of process 1; never returns."""
    status = 125
    try:
        die_with_parent()
        prepare()
        child = os.fork()
        if child == 0:
            os.close(tell)
            os.execvpe(argv[0], list(argv), environ)
        os.write(tell, b"1")
        os.close(tell)
        status = reap_until(child)
    except OSError as error:
        os.write(2, f"{argv[0]}: {error}\n".encode())
    finally:
        os._exit(status)


def mount_world() -> None:
    """The mounts of a world: its own /proc and an empty /run, so that no daemon of the real machine can be reached."""
    mount("", "none", "/", MS_REC | MS_PRIVATE)
    mount("proc", "proc", "/proc", MS_NOSUID | MS_NODEV)
    mount("tmpfs", "skyspan", "/run", MS_NOSUID | MS_NODEV, "mode=755")


def join_cgroups(groups: Sequence[Mapping[str, str]]) -> None:
    """Let this process and its children be in control groups of their own, and see nothing of those above.

    Each has `group`, its folder here, and `name`, that of its hierarchy: empty for the unified one, in which only a
    group without processes has controllers (cgroups(7)); so there they are in one below.
    """
    if not groups:
        return
    for one in groups:
        (Path(one["group"]) / "cgroup.procs").write_text(str(os.getpid()))
    call("unshare", CLONE_NEWCGROUP)
    for one in groups:
        if not one["name"]:
            top = Path(one["group"])
            (top / "init").mkdir()
            (top / "init/cgroup.procs").write_text(str(os.getpid()))
            for controller in (top / "cgroup.controllers").read_text().split():
                (top / "cgroup.subtree_control").write_text(f"+{controller}")


def mount_cgroups(groups: Sequence[Mapping[str, str]], target: Path) -> None:
    """Mount the hierarchies of `groups` where programs expect them; `options` name a hierarchy's controllers."""
    if any(one["name"] for one in groups):
        mount("tmpfs", "tmpfs", target, MS_NOSUID | MS_NODEV, "mode=755")
    for one in groups:
        (target / one["name"]).mkdir(exist_ok=True)
        mount("cgroup" if one["name"] else "cgroup2", "cgroup", target / one["name"], 0, one["options"])


def mount_machine(machine: Mapping[str, Any]) -> None:
    """The root file system of a stand-in: this machine's below its `tools`, with every change kept in `folder`/upper;
    over it what `binds` says, by the path inside, and its control groups."""
    name, folder, tools = machine["name"], Path(machine["folder"]), machine["tools"]
    mount("", "none", "/", MS_REC | MS_PRIVATE)
    root = folder / "root"
    mount("overlay", name, root, 0, f"lowerdir={tools}:/,upperdir={folder / 'upper'},workdir={folder / 'work'}")
    mount("proc", "proc", root / "proc", MS_NOSUID | MS_NODEV)
    mount("sysfs", "sysfs", root / "sys", MS_NOSUID | MS_NODEV)
    mount("", "/dev", root / "dev", MS_BIND | MS_REC)
    mount("tmpfs", "shm", root / "dev/shm", MS_NOSUID | MS_NODEV)
    for inner, source in machine["binds"].items():
        mount("", source, root / inner, MS_BIND)
    mount_cgroups(machine["cgroups"], root / "sys/fs/cgroup")
    os.chdir(root)
    call("pivot_root", b".", b".")
    call("umount2", b".", MNT_DETACH)
    os.chdir("/")
    socket.sethostname(name)


def main(request: str) -> int:
    """Be the init of one stand-in. Prints its pid when ready.

    `request` is JSON: `name`, `folder`, `tools`, `argv`, `binds`, `cgroups` (see `mount_machine`, `join_cgroups`).
    """
    machine = json.loads(request)
    die_with_parent()
    join_cgroups(machine["cgroups"])
    return isolate(lambda: mount_machine(machine), machine["argv"], LOGIN_ENVIRONMENT, ready=sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
