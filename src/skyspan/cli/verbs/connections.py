"""`skyspan connections add|list|show|remove`: a workspace's templates of connections."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from skyspan.cli.asyncs import in_session
from skyspan.cli.options import Globals, verb
from skyspan.cli.views.document import show_document, show_text
from skyspan.model.error import NotFoundError, UsageError


@click.group("connections", context_settings={"help_option_names": ["--help", "-h"]})
def connections() -> None:
    """Templates of links that a workspace's compositions share: settings that a stage starts from."""


@click.argument("name")
@click.argument("file", metavar="FILE|-")
@click.option("--replace", is_flag=True, help="Give up the template of that name.")
def _add(given: Globals, name: str, file: str, replace: bool) -> None:
    """Keep a template: YAML with `uses: PROVIDER`, `with: {…}`, and a `description` if you like.

    Stages start from it by `uses: connection` or their provider, with `with: {template: NAME, …}`. It may hold
    expressions over the composition that uses it; secrets only as ${{ secrets.NAME }}.
    """
    from skyspan.app import connections as use
    from skyspan.cli.views.problem import note
    from skyspan.providers.registry import Registry

    written = use.Written(_read(file), "standard input" if file == "-" else file)
    document = in_session(
        given.settings(), lambda session: use.add(session, name, written, Registry().spec_of, replace=replace)
    )
    if given.as_json:
        show_document(document)
        return
    done = "replaced" if document["replaced"] else "added"
    note(f"connection {name} ({document['uses']}) is {done} in workspace {document['workspace']}")


def _list(given: Globals) -> None:
    """List the templates."""
    from skyspan.app import connections as use
    from skyspan.cli.views.tables import show_connections

    document = in_session(given.settings(), use.listing)
    (show_document if given.as_json else show_connections)(document)


@click.argument("name")
def _show(given: Globals, name: str) -> None:
    """Print a template as it was written, and who uses it."""
    from skyspan.app import connections as use
    from skyspan.cli.views.problem import note

    shown = in_session(given.settings(), lambda session: use.show(session, name))
    if given.as_json:
        show_document(shown.document)
        return
    show_text(shown.text)
    if shown.document["used_by"]:
        note(f"used by {', '.join(shown.document['used_by'])}")


@click.argument("name")
def _remove(given: Globals, name: str) -> None:
    """Remove a template. Deployments keep what they were applied with; their next `up` needs one of that name."""
    from skyspan.app import connections as use
    from skyspan.cli.views.problem import note

    document = in_session(given.settings(), lambda session: use.remove(session, name))
    if given.as_json:
        show_document(document)
    else:
        note(f"connection {name} is removed from workspace {document['workspace']}")
    if document["used_by"]:
        users = ", ".join(document["used_by"])
        told = "what was made with it stays as it is, but the next `up` needs one of that name"
        note(f"warning: {users} last used connection {name}: {told}")


def _read(file: str) -> str:
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return content.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file {file}") from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{file} is not UTF-8: byte {error.object[error.start]:#04x} at offset {error.start}"
        ) from error
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error


connections.add_command(verb("add")(_add))
connections.add_command(verb("list")(_list))
connections.add_command(verb("show")(_show))
connections.add_command(verb("remove")(_remove))
