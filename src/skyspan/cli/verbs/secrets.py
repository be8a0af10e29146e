"""`skyspan secrets set|list|remove`: a workspace's secrets. Values come from standard input, never from arguments."""

from __future__ import annotations

import sys

import click

from skyspan.cli.asyncs import in_session
from skyspan.cli.options import Globals, verb
from skyspan.cli.views.document import show_document
from skyspan.model.address import is_name
from skyspan.model.error import NotFoundError, UsageError
from skyspan.model.secret import Secret


@click.group("secrets", context_settings={"help_option_names": ["--help", "-h"]})
def secrets() -> None:
    """Set, list and remove a workspace's secrets; compositions read them as ${{ secrets.NAME }}."""


def _set(given: Globals, name: str) -> None:
    """Set a secret; its value comes from standard input.

    One line end at the very end of the input is not part of the value.
    """
    from skyspan.cli.views.problem import note

    if not is_name(name):
        raise UsageError(f"{name!r} is no secret name", hint="lower-case letters, digits, - and _")
    if sys.stdin.isatty():
        text = click.prompt(f"value of {name}", hide_input=True, err=True)
    else:
        text = sys.stdin.read().removesuffix("\n")
    if not text:
        raise UsageError("an empty value is no secret", hint=f"echo -n VALUE | skyspan secrets set {name}")
    settings = given.settings()
    in_session(settings, lambda session: session.store.put_secret(settings.workspace, name, Secret(text)))
    if given.as_json:
        show_document({"workspace": settings.workspace, "name": name})
    else:
        note(f"secret {name} is set in workspace {settings.workspace}")


def _list(given: Globals) -> None:
    """List the names."""
    from skyspan.cli.views.tables import show_names

    settings = given.settings()
    names = list(in_session(settings, lambda session: session.store.secret_names(settings.workspace)))
    if given.as_json:
        show_document({"workspace": settings.workspace, "secrets": names})
    else:
        show_names(names, "no secrets yet: echo -n VALUE | skyspan secrets set NAME")


def _remove(given: Globals, name: str) -> None:
    """Remove a secret."""
    from skyspan.cli.views.problem import note

    settings = given.settings()
    if not in_session(settings, lambda session: session.store.remove_secret(settings.workspace, name)):
        raise NotFoundError(f"there is no secret {name!r} in workspace {settings.workspace!r}")
    if given.as_json:
        show_document({"workspace": settings.workspace, "removed": name})
    else:
        note(f"secret {name} is removed from workspace {settings.workspace}")


secrets.add_command(verb("set")(click.argument("name")(_set)))
secrets.add_command(verb("list")(_list))
secrets.add_command(verb("remove")(click.argument("name")(_remove)))
