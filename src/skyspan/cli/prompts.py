"""What is too secret for an argument: asked on a terminal, read from standard input elsewhere."""

from __future__ import annotations

import sys

import click

from skyspan.model.error import UsageError
from skyspan.model.secret import Secret


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
