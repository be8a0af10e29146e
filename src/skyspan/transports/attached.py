"""Runs a command on our own standard streams and terminal: for the program that a person asked for, such as a shell."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def run_attached(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run `argv` to its end and return its exit status as a shell reports it (128 and the number of a signal).

    It shares our session, so a Ctrl-C on a terminal reaches it by itself; every other signal that would end us is
    passed on to it instead. Raises OSError when it cannot be started.
    """
    loop = asyncio.get_running_loop()
    from_terminal = os.isatty(0)
    pid = 0

    def forward(number: int) -> None:
        if pid and (number != signal.SIGINT or not from_terminal):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    # Before it starts: it may already be answering when we would only get to this.
    for number in FORWARDED:
        loop.add_signal_handler(number, forward, number)
    try:
        pid = _start(argv, environ)
        code = os.waitstatus_to_exitcode((await asyncio.to_thread(os.waitpid, pid, 0))[1])
    finally:
        for number in FORWARDED:
            loop.remove_signal_handler(number)
    return 128 - code if code < 0 else code


def _start(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    return os.posix_spawnp(argv[0], list(argv), environ)
