"""Owns commands and connections of this machine."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path

from skyspan.contracts.transport import Command, Completed, Connection, OnOutput
from skyspan.model.error import Retry, SpecError, StageError, ToolFailedError, ToolMissingError
from skyspan.transports.arguments import refuse_write, revealed_env
from skyspan.transports.child import Child
from skyspan.transports.running import to_the_end
from skyspan.transports.tcp import dial_from_here


class LocalTransport:
    """This machine (a `Transport` and a `Spawner`). `base_env` is what every command gets besides its own `env`."""

    def __init__(self, base_env: Mapping[str, str], cwd: str | None = None) -> None:
        self._base_env = dict(base_env)
        self._cwd = cwd

    @property
    def name(self) -> str:
        return "here"

    async def query(self, command: Command, on_output: OnOutput | None = None) -> Completed:
        refuse_write(command)
        return await self.run(command, on_output)

    async def run(self, command: Command, on_output: OnOutput | None = None) -> Completed:
        return await to_the_end(self._start(command, on_output), command.timeout_s)

    async def start(self, command: Command, on_output: OnOutput | None = None) -> Child:
        return self._start(command, on_output)

    async def dial(self, address: str, port: int, timeout_s: float) -> Connection:
        return await dial_from_here(address, port, timeout_s)

    async def close(self) -> None:
        """Nothing is held open between commands."""

    def _start(self, command: Command, on_output: OnOutput | None) -> Child:
        cwd = command.cwd if command.cwd is not None else self._cwd
        try:
            return Child(command, self._base_env | revealed_env(command.env), cwd, on_output)
        except OSError as error:
            raise not_started(command, cwd, error) from error
        except (ValueError, IndexError) as error:
            # Empty argv, a NUL byte, a `=` in the name of a variable.
            raise SpecError(f"cannot run `{command.display()}`: {error}") from error


def not_started(command: Command, cwd: str | None, error: OSError) -> StageError:
    """The error for a command that could not be started, told apart by errno and by what it is about."""
    said = f"cannot run `{command.display()}`"
    if cwd is not None and error.filename == cwd:
        return SpecError(f"{said}: its folder {cwd} cannot be entered: {error.strerror}", hint="does the folder exist?")
    tool = command.argv[0] if isinstance(command.argv[0], str) else "the program"
    if error.errno == errno.ENOENT and "/" in tool and Path(cwd or ".", tool).exists():
        return ToolFailedError(f"{said}: the interpreter in the first line of {tool} does not exist")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return ToolMissingError(f"{tool} is not installed here", detail=said, hint=f"install {tool} or add it to PATH")
    if error.errno in (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE):
        return StageError(f"{said}: {error.strerror}", hint="the machine is short of resources", retry=Retry.LATER)
    hints = {
        errno.EACCES: f"make {tool} executable, or name its interpreter",
        errno.ENOEXEC: f"{tool} is no program of this machine's kind; a script needs a first line like `#!/bin/sh`",
        errno.E2BIG: "pass long data by standard input or a file",
    }
    return ToolFailedError(f"{said}: {error.strerror}", hint=hints.get(error.errno or 0, ""))
