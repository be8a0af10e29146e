"""Owns the memory of which sshd processes on the host served our connections, to end those that were left behind.

After a cut that nobody announces, the host's sshd may hold the listeners of a dead connection for hours.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, TypeAlias

_TIMEOUT_S = 5.0
_MOST = 8

_Session: TypeAlias = tuple[int, int, str]
"""Process id, start in ticks since the boot, and the boot."""

_WHO = "echo skyspan $PPID $(cut -d' ' -f22 /proc/$PPID/stat) $(cat /proc/sys/kernel/random/boot_id)"
"""The process that serves the connection."""

_END = """
pid=%d began=%d boot=%s
[ "$(cat /proc/sys/kernel/random/boot_id)" = $boot ] || exit 1
[ "$(cut -d' ' -f22 /proc/$pid/stat 2>/dev/null)" = $began ] || exit 1
kill $pid || exit 1
for try in 1 2 3 4 5 6 7 8 9 10; do
  [ "$(cut -d' ' -f22 /proc/$pid/stat 2>/dev/null)" = $began ] || exit 0
  sleep 0.1
done
kill -9 $pid
"""


class Sessions:
    """The sshd processes of our latest connections, in a file of the forwarder's folder."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._connection: Any | None = None
        self._current: _Session | None = None

    async def remember(self, connection: Any) -> None:
        """From now on this connection is the present one. A host that runs no commands for us is not remembered."""
        import asyncssh

        if connection is self._connection:
            return
        self._connection, self._current = connection, None
        with contextlib.suppress(asyncssh.Error, OSError, TimeoutError, ValueError, IndexError):
            done = await connection.run(_WHO, timeout=_TIMEOUT_S)
            _, pid, began, boot = str(done.stdout).strip().splitlines()[-1].split()
            self._current = (int(pid), int(began), boot)
            self._keep([*self._known(), self._current][-_MOST:])

    async def end_earlier(self, connection: Any) -> bool:
        """End the processes of earlier connections that are still there; whether there were any."""
        import asyncssh

        ended = False
        for session in self._known():
            if session == self._current:
                continue
            try:
                done = await connection.run(_END % session, timeout=_TIMEOUT_S)
            except (OSError, TimeoutError, asyncssh.Error):
                return ended
            ended = ended or done.exit_status == 0
        self._keep([self._current] if self._current is not None else [])
        return ended

    def _known(self) -> list[_Session]:
        try:
            found = [(int(pid), int(began), str(boot)) for pid, began, boot in json.loads(self._file.read_text())]
        except (OSError, ValueError, TypeError):
            return []
        return [session for session in found if session[2].replace("-", "").isalnum()]

    def _keep(self, sessions: list[_Session]) -> None:
        with contextlib.suppress(OSError):
            self._file.write_text(json.dumps(sessions))
