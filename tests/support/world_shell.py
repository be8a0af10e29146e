"""A rehearsal's world held open for many scripts: making one takes seconds, a script in it a few hundredths."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_END = "@end of the script:"


class WorldShell:
    """A shell in the world of one `skyspan rehearse exec`."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log

    def __call__(self, script: str) -> str:
        """What a script of its own `bash -euo pipefail` prints; it has to succeed."""
        assert self._process.stdin is not None and self._process.stdout is not None
        run = shlex.join(("bash", "-euo", "pipefail", "-c", script))
        self._process.stdin.write(f"{run} </dev/null\nprintf '\\n{_END} %s\\n' $?\n")
        self._process.stdin.flush()
        said: list[str] = []
        for line in self._process.stdout:
            if line.startswith(_END):
                text = "".join(said).removesuffix("\n")
                assert int(line.removeprefix(_END)) == 0, f"{script}\n{text}\n{self._log.read_text()}"
                return text
            said.append(line)
        raise AssertionError(f"the world is gone: {self._log.read_text()}")


@contextmanager
def world_shell(folder: Path, environ: Mapping[str, str] | None = None) -> Iterator[WorldShell]:
    """Hold the world of the composition in `folder` open; it ends with the block."""
    argv = [sys.executable, "-m", "skyspan", "rehearse", "exec", "-f", str(folder), "--", "bash", "--norc"]
    log = folder / "world.log"
    with log.open("w") as told:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=told,
            text=True,
            env=dict(os.environ if environ is None else environ),
        )
    try:
        yield WorldShell(process, log)
    finally:
        process.communicate(timeout=60)
