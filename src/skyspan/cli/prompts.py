"""What a person is asked: whether to go on; what is too secret for an argument, which may be on standard input too."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from skyspan.model.error import UsageError
from skyspan.model.secret import Secret


def confirm(question: str) -> bool:
    """Whether the answer on the terminal is yes; no unless it is said. Raises click.Abort at the end of the input, and
    KeyboardInterrupt at Ctrl-C."""
    from skyspan.cli.views.problem import ask, note

    with _ctrl_c_ends_it() as pressed:
        while True:
            ask(f"{question} [y/N]: ")
            answer = _line(pressed).strip().lower()
            if answer in ("y", "yes"):
                return True
            if answer in ("", "n", "no"):
                return False
            note("Error: answer y or n")


def ask_passphrase(what: str) -> Secret:
    """A passphrase that exists already. One line end at the very end is not part of it. Raises UsageError."""
    return _asked(what, confirm=False)


def ask_new_passphrase(what: str) -> Secret:
    """A passphrase that is new: on a terminal it is asked for twice. Raises UsageError."""
    return _asked(what, confirm=True)


def _asked(what: str, *, confirm: bool) -> Secret:
    if sys.stdin.isatty():
        text = click.prompt(what, hide_input=True, confirmation_prompt=confirm, err=True)
    else:
        text = sys.stdin.read().removesuffix("\n")
    if not text:
        raise UsageError(f"{what} is empty", hint="it comes from standard input: echo -n PASSPHRASE | skyspan …")
    return Secret(text)


def _line(pressed: int) -> str:
    select.select([sys.stdin, pressed], [], [])
    text = sys.stdin.readline()
    if not text:
        raise click.Abort
    return text


@contextmanager
def _ctrl_c_ends_it() -> Iterator[int]:
    """Ctrl-C raises KeyboardInterrupt here, and makes a file descriptor readable.

    The event loop would answer it by cancelling its task, which does not reach who waits for a key. And a signal that
    comes just before a read blocks does not end the read: so it is waited for beside the key.
    """
    pressed, told = os.pipe()
    os.set_blocking(told, False)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    wakeup = signal.set_wakeup_fd(told)
    try:
        yield pressed
    finally:
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGINT, handler)
        os.close(pressed)
        os.close(told)
