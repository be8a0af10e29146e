"""A terminal: runs a command on a pseudo-terminal, answers its questions, and keeps what its screen shows."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_CONTROL = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])")


class Screen:
    """What is on the screen and above it, for the few control sequences that a command line uses."""

    def __init__(self) -> None:
        self._lines = [""]
        self._row = self._column = 0

    def feed(self, text: str) -> None:
        """Show `text`."""
        at = 0
        while at < len(text):
            control = _CONTROL.match(text, at)
            if control is not None:
                self._control(control.group(1), control.group(2))
                at = control.end()
                continue
            self._character(text[at])
            at += 1

    def text(self) -> str:
        """Everything, spaces at the ends of lines left out."""
        return "\n".join(line.rstrip() for line in self._lines)

    def _character(self, character: str) -> None:
        if character == "\r":
            self._column = 0
        elif character == "\n":
            self._row += 1
            if self._row == len(self._lines):
                self._lines.append("")
        elif character.isprintable():
            line = self._lines[self._row].ljust(self._column)
            self._lines[self._row] = line[: self._column] + character + line[self._column + 1 :]
            self._column += 1

    def _control(self, number: str, letter: str) -> None:
        if letter == "A":
            self._row = max(0, self._row - int(number or 1))
        elif letter == "K":
            self._lines[self._row] = "" if number == "2" else self._lines[self._row][: self._column]
        else:
            assert letter in "mhl", f"this screen does not know \\x1b[{number}{letter}"


def _take_the_terminal() -> None:
    """Make it the controlling terminal, so that Ctrl-C on it is a signal."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """A command whose three streams are one terminal of 100 by 30 characters."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], cwd: Path) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.process = subprocess.Popen(
            argv,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**env, "TERM": "xterm-256color"},
            cwd=cwd,
            start_new_session=True,
            preexec_fn=_take_the_terminal,  # noqa: PLW1509 - no threads in the child that matter before exec
        )
        os.close(theirs)
        self.raw = ""
        self._undecoded = b""

    def type(self, text: str) -> None:
        """Press keys; `\\x03` is Ctrl-C."""
        os.write(self._ours, text.encode())

    def wait_for(self, text: str, timeout_s: float = 30.0) -> None:
        """Wait until `text` has been shown."""
        deadline = time.monotonic() + timeout_s
        while text not in self.raw:
            assert time.monotonic() < deadline, f"{text!r} never showed:\n{self.screen()}"
            self._read(0.1)

    def end(self, timeout_s: float = 60.0) -> int:
        """Read to the end; the exit status."""
        deadline = time.monotonic() + timeout_s
        while self._read(0.1):
            assert time.monotonic() < deadline, f"it does not end:\n{self.screen()}"
        return self.process.wait(10)

    def screen(self) -> str:
        """What the screen shows by now."""
        screen = Screen()
        screen.feed(self.raw)
        return screen.text()

    def close(self) -> None:
        """Kill what has not ended."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        with contextlib.suppress(OSError):
            os.close(self._ours)

    def _read(self, wait_s: float) -> bool:
        """Read what is there; whether more may come."""
        if not select.select([self._ours], [], [], wait_s)[0]:
            return True
        try:
            data = os.read(self._ours, 65536)
        except OSError:
            data = b""  # Linux says EIO when the last process has closed its side.
        text = (self._undecoded + data).decode(errors="ignore")
        self._undecoded = (self._undecoded + data)[len(text.encode()) :]
        self.raw += text
        return bool(data)
