"""`skyspan secrets set|list|remove|rotate`: a workspace's secrets and the keys that seal them.

Values come from standard input, never from arguments.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from skyspan.cli.asyncs import in_session
from skyspan.cli.options import Globals, verb
from skyspan.cli.views.document import show_document
from skyspan.model.address import is_name
from skyspan.model.error import NotFoundError, UsageError
from skyspan.model.secret import Secret

if TYPE_CHECKING:
    from skyspan.app.session import Session


@click.group("secrets", context_settings={"help_option_names": ["--help", "-h"]})
def secrets() -> None:
    """Set, list and remove a workspace's secrets; compositions read them as ${{ secrets.NAME }}. Replace their keys."""


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


@click.option("--master", is_flag=True, help="Only the master key: the key file, or the passphrase.")
@click.option("--data", is_flag=True, help="Only this workspace's data key.")
@click.option("--new-passphrase", is_flag=True, help="Lock the home with a passphrase from standard input.")
def _rotate(given: Globals, master: bool, data: bool, new_passphrase: bool) -> None:
    """Replace the keys that seal everything, while others go on working; run again, it goes on where it stopped.

    Without --master and --data both are replaced.
    """
    from skyspan.app.rotation import rotate_data, rotate_master
    from skyspan.app.session import with_passphrase
    from skyspan.cli.prompts import ask_new_passphrase
    from skyspan.cli.views.problem import note

    new = ask_new_passphrase("the new passphrase") if new_passphrase else None

    async def work(session: Session) -> list[dict[str, Any]]:
        if session.passphrase is not None and new is None and (master or not data):
            raise UsageError(
                "the home is locked with a passphrase: a new master key needs a new one",
                hint="echo -n PASSPHRASE | skyspan secrets rotate --new-passphrase; or --data for the data key alone",
            )
        done = [await rotate_master(session, new)] if master or not data else []
        # What was just locked with another passphrase does not open with the old one.
        data_session = session if new is None else with_passphrase(session, new)
        return [*done, await rotate_data(data_session)] if data or not master else done

    rotated = in_session(given.settings(), work)
    if given.as_json:
        show_document({"rotated": rotated})
        return
    for item in rotated:
        told = f"; {item['resealed']} values are sealed anew" if "resealed" in item else ""
        note(
            f"the {item['keys']} key is new{told}"
            + (" (an interrupted rotation was finished)" if item["resumed"] else "")
        )
    if new is not None:
        note("from now on set SKYSPAN_PASSPHRASE, its command or its credential to the new passphrase")


secrets.add_command(verb("rotate")(_rotate))
secrets.add_command(verb("set")(click.argument("name")(_set)))
secrets.add_command(verb("list")(_list))
secrets.add_command(verb("remove")(click.argument("name")(_remove)))
