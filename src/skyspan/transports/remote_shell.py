"""Owns the script by which a command starts on the far side of an SSH connection (pure).

`sshd` hands one string to the user's login shell, whatever that is, and everybody on that machine can read it. So the
string is a constant, `BOOTSTRAP`, that every shell understands; it makes `/bin/sh` read one line of standard input, and
only that line, and execute it. The line carries the folder, the environment and the arguments, so secrets in the
environment never appear in a process list, and no limit on the length of an argument applies to it.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from enum import StrEnum

BOOTSTRAP = "exec /bin/sh -c 'IFS= read -r s && eval \"$s\"'"

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_LINE_BREAK = "skyspan_nl"
_SESSION = "SKYSPAN_SESSION"


class Word(StrEnum):
    """The second word of the marker line, which says how the start went."""

    STARTED = "started"
    NO_FOLDER = "no-folder"
    NO_TOOL = "no-tool"


def starting_line(marker: str, argv: Sequence[str], env: Mapping[str, str], cwd: str | None) -> str:
    """The line, with its end. It prints `MARKER WORD PID` on standard output and becomes the command.

    What the login shell printed before belongs to its start-up files. The marker stays in the command's environment,
    for `remnant_script`. Raises ValueError for what no shell can pass on.
    """
    if not argv or not argv[0]:
        msg = "the command is empty"
        raise ValueError(msg)
    steps: list[str] = []
    if cwd is not None:
        # `--` for a folder that begins with a dash; CDPATH would make `cd` print.
        steps.append(f"CDPATH= cd -- {_quoted(cwd)} 2>/dev/null || {{ echo {marker} {Word.NO_FOLDER} $$; exit 1; }}")
    for name, value in env.items():
        if not _VARIABLE.match(name):
            msg = f"{name!r} is no name that a shell can give to a variable"
            raise ValueError(msg)
        steps.append(f"export {name}={_quoted(value)}")
    tool = _quoted(argv[0])
    steps += [
        f"export {_SESSION}={marker}",
        f"command -v {tool} >/dev/null 2>&1 || {{ echo {marker} {Word.NO_TOOL} $$; exit 127; }}",
        f"echo {marker} {Word.STARTED} $$",
        "exec " + " ".join(map(_quoted, argv)),
    ]
    line = "; ".join(steps)
    if _LINE_BREAK in line:
        # `$(...)` drops line breaks at the end, hence the guard behind it.
        line = f'{_LINE_BREAK}=$(printf "\\nx"); {_LINE_BREAK}=${{{_LINE_BREAK}%x}}; {line}'
    return line + "\n"


def signal_script(signal: str, pid: int, *, whole_group: bool) -> str:
    """The remote command that sends a signal to the process, or to its group and, in case it leads none, to it."""
    if whole_group:
        return f"/bin/sh -c 'kill -{signal} -{pid} 2>/dev/null; kill -{signal} {pid} 2>/dev/null; true'"
    return f"/bin/sh -c 'kill -{signal} {pid} 2>/dev/null; true'"


def remnant_script(marker: str, pid: int, first_s: float, second_s: float) -> str:
    """The remote command that ends, by the ladder's steps, what a broken connection left running, if it still runs.

    It ends with 0 once the process is gone. A process that merely got the same id is not touched: its environment does
    not hold the marker (Linux, where `/proc/PID/environ` shows what it was started with).
    """
    again, last = math.ceil(first_s), math.ceil(first_s + second_s)
    return (
        f"/bin/sh -c 'ours() {{ tr "
        f'"\\000" "\\n" </proc/{pid}/environ | grep -qx {_SESSION}={marker}; }}; n=0; '
        f"while ours 2>/dev/null; do "
        f"if [ $n -ge {last} ]; then kill -KILL -{pid}; kill -KILL {pid}; "
        f"elif [ $n = 0 ] || [ $n = {again} ]; then kill -INT {pid}; fi; "
        f"[ $n -gt {last + 5} ] && exit 1; n=$((n+1)); sleep 1; done 2>/dev/null; true'"
    )


def _quoted(text: str) -> str:
    if "\0" in text:
        msg = "an argument or a variable holds a NUL byte"
        raise ValueError(msg)
    return f'"${_LINE_BREAK}"'.join(shlex.quote(part) if part or "\n" not in text else "" for part in text.split("\n"))
