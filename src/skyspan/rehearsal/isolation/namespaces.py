"""Starts a program in namespaces of its own, on our terminal, from which nothing can escape and nothing remains.

The world's network namespace has no way out, its /run is empty, and its first process takes every other one with it:
whatever ends the calling process, even SIGKILL, ends all of it. All that a world makes is in memory or in a namespace,
so a crashed one leaves nothing to clean up.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType, MappingProxyType

from skyspan.model.error import ToolMissingError, UsageError
from skyspan.rehearsal.isolation import firstprocess

PACKAGES: Mapping[str, str] = MappingProxyType(
    {
        "ip": "iproute2",
        "nft": "nftables",
        "nsenter": "util-linux",
        "sshd": "openssh-server",
        "ssh-keygen": "openssh-client",
    }
)
"""The tools that a world is made with, and the Debian package of each."""

SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where these may be although an ordinary user's PATH does not say so."""


def require(path: str) -> None:
    """Raise UsageError unless we are root, ToolMissingError unless every tool is there."""
    if os.geteuid() != 0:
        raise UsageError(
            "a rehearsal needs root: it makes network namespaces and mounts, all of them its own",
            hint="run it as root, for example with sudo",
        )
    missing = [tool for tool in PACKAGES if shutil.which(tool, path=f"{path}:{SBIN}") is None]
    if missing:
        packages = " ".join(dict.fromkeys(PACKAGES[tool] for tool in missing))
        raise ToolMissingError(
            f"a rehearsal needs {', '.join(missing)}", hint=f"install it, on Debian: apt-get install {packages}"
        )


def run_isolated(
    argv: Sequence[str],
    environ: Mapping[str, str],
    inherit: int | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> int:
    """Run `argv` as the first program of new namespaces and return its exit status.

    It has our standard streams and our terminal. `inherit` is a file descriptor that it keeps; here it is closed.
    `meanwhile` is called while it runs. To be called from the main thread, outside any event loop: it forks.
    """
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _hold(parent, argv, environ, inherit)
    if inherit is not None:
        os.close(inherit)
    with _forwarding(child):
        try:
            if meanwhile is not None:
                meanwhile()
        finally:
            status = firstprocess.exit_status(os.waitpid(child, 0)[1])
    return status


def _hold(parent: int, argv: Sequence[str], environ: Mapping[str, str], inherit: int | None) -> None:
    """Be the process that owns the namespaces; never returns."""
    status = 125
    try:
        firstprocess.die_with_parent()
        if os.getppid() != parent:
            return  # it ended before the kernel was told
        if inherit is not None:
            os.set_inheritable(inherit, True)
        status = firstprocess.isolate(firstprocess.mount_world, argv, environ)
    except OSError as error:
        os.write(2, f"cannot make namespaces: {error}\n".encode())
    finally:
        os._exit(status)


@contextmanager
def _forwarding(child: int) -> Iterator[None]:
    """Pass the signals that end a program on to `child`; a Ctrl-C on a terminal reaches it without us."""
    from_terminal = os.isatty(0)

    def forward(number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGINT or not from_terminal:
            os.kill(child, number)

    before = {number: signal.signal(number, forward) for number in firstprocess.FORWARDED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
