"""The commands of a command stage, as values."""

from __future__ import annotations

import json
import shlex
import signal
from collections.abc import Mapping
from pathlib import Path

from skyspan.contracts.transport import Command, Completed, Effect
from skyspan.model.secret import MASK, Secret
from skyspan.model.value import OutputValue
from skyspan.providers.command.spec import OUTPUT_VARIABLE, CommandSpec, Script

_SCRIPT_VARIABLE = "SKYSPAN_SCRIPT"

_HIDDEN_SCRIPT = f'set -- "${_SCRIPT_VARIABLE}"; unset {_SCRIPT_VARIABLE}; eval "shift; $1"'
"""Runs a script that holds a secret out of the environment, so that no process list shows it."""

_SHOWN = 100


def shown(script: Script) -> str:
    """The command for people, in one line: quoted for a shell, cut when long, secrets masked."""
    if isinstance(script, Secret):
        return f"sh -euc {MASK}"
    text = script.strip() if isinstance(script, str) else shlex.join(script)
    first, _, rest = text.partition("\n")
    return first if not rest and len(first) <= _SHOWN else first[: _SHOWN - 1].rstrip() + "…"


def command_for(
    script: Script,
    spec: CommandSpec,
    folder: Path,
    *,
    effect: Effect = Effect.WRITE,
    extra: Mapping[str, str | Secret] | None = None,
    stdin: str | Secret | None = None,
) -> Command:
    """`script` of `spec` with its environment and folder; `extra` adds variables, `stdin` is its standard input."""
    env: dict[str, str | Secret] = {**(extra or {}), **spec.env}
    if isinstance(script, Secret):
        argv: tuple[str, ...] = ("sh", "-euc", _HIDDEN_SCRIPT)
        env[_SCRIPT_VARIABLE] = script
    else:
        argv = ("sh", "-euc", script) if isinstance(script, str) else script
    return Command(
        argv=argv,
        env=env,
        stdin=stdin.encode() if isinstance(stdin, str) else stdin,
        cwd=folder_of(spec, folder),
        effect=effect,
    )


def folder_of(spec: CommandSpec, folder: Path) -> str | None:
    """Where the commands of `spec` run; None is the login folder of a host."""
    if spec.host is not None:
        return None if spec.workdir == "." else spec.workdir
    return str(folder) if spec.workdir == "." else str(folder / spec.workdir)


def existence_query(spec: CommandSpec, folder: Path) -> Command:
    """Exits with 0 when everything in `creates` exists on the host."""
    script = 'for path do [ -e "$path" ] || exit 1; done'
    return Command(("sh", "-c", script, "sh", *spec.created), cwd=folder_of(spec, folder), effect=Effect.READ)


def make_output_folder() -> Command:
    """Makes a folder on a host that nobody else can look into, and prints its path."""
    return Command(("sh", "-c", 'umask 077; mktemp -d "${TMPDIR:-/tmp}/skyspan.XXXXXXXX"'))


def collect_output(folder: str, limit: int) -> Command:
    """Prints what was written to the output file in `folder`: `limit` bytes at most."""
    path = f"{folder}/output"
    return Command(("sh", "-c", 'if [ -e "$1" ]; then head -c "$2" "$1"; fi', "sh", path, str(limit)))


def remove_output_folder(folder: str) -> Command:
    """Removes what `make_output_folder` made."""
    return Command(("rm", "-rf", "--", folder))


def output_variables(outputs: Mapping[str, OutputValue]) -> dict[str, str | Secret]:
    """The recorded outputs for `check`, `start`, `stop` and `destroy`: `SKYSPAN_OUTPUT_NAME`, texts as they are."""
    return {
        f"{OUTPUT_VARIABLE}_{name.upper().replace('-', '_')}": Secret(
            output.value if isinstance(output.value, str) else json.dumps(output.value)
        )
        for name, output in outputs.items()
    }


def ending(completed: Completed) -> str:
    """How a command that failed ended, in words."""
    if completed.timed_out:
        return "did not end in time"
    if completed.exit_code >= 0:
        return f"exited with status {completed.exit_code}"
    try:
        return f"was ended by {signal.Signals(-completed.exit_code).name}"
    except ValueError:
        return f"was ended by signal {-completed.exit_code}"
