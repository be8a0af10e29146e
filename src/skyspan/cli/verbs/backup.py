"""`skyspan backup FILE` and `skyspan restore FILE`."""

from __future__ import annotations

from pathlib import Path

import click

from skyspan.cli.asyncs import in_session
from skyspan.cli.options import Globals, consent_option, verb
from skyspan.cli.views.document import show_document


@verb("backup")
@click.argument("file", metavar="FILE")
def backup(given: Globals, file: str) -> None:
    """Write the whole store to FILE, from one moment, while others go on working.

    Values stay sealed. The file holds the keys in wrapped form, never the key file that unwraps them.
    """
    from skyspan.app import backup as use
    from skyspan.cli.views.problem import note

    document = in_session(given.settings(), lambda session: use.backup(session, Path(file).absolute()))
    if given.as_json:
        show_document(document)
    else:
        note(f"{document['rows']} rows are in {document['file']} ({document['bytes']} bytes)")
    if document["key_file"]:
        note(f"warning: keep a copy of {document['key_file']} apart from it: without that, nothing in it can be opened")


@verb("restore")
@click.argument("file", metavar="FILE")
@click.option("--replace", is_flag=True, help="Give up what the store holds now.")
@click.option("--key", metavar="FILE", help="The key file of the home that the backup is from.")
@consent_option
def restore(given: Globals, file: str, replace: bool, key: str | None, yes: bool) -> int:
    """Fill the store with what a backup holds: all of it or nothing. Any backup fits SQLite and PostgreSQL."""
    from skyspan.app import backup as use
    from skyspan.cli.running import agree
    from skyspan.cli.views.problem import note

    path = Path(file).absolute()
    settings = given.settings()
    place = settings.store.split("@")[-1]

    def told() -> None:
        note(f"everything in {place} is replaced by {path}; what runs have done since then is forgotten")

    if replace and not agree("replace it?", yes, told, "look at the backup's time, then give --yes"):
        return 1
    key_file = Path(key).absolute() if key else None
    document = in_session(settings, lambda session: use.restore(session, path, replace=replace, key=key_file))
    if given.as_json:
        show_document(document)
    else:
        note(f"{document['rows']} rows of {document['made_at']} are in {place}")
        if document["moved_aside"]:
            note(f"the damaged store was moved to {document['moved_aside']}")
        note("see what is really there: skyspan list, then skyspan check NAME")
    for flaw in document["flaws"]:
        note(f"warning: {flaw}")
    return 1 if document["flaws"] else 0
