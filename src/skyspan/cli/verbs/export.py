"""`skyspan export NAME --to RECIPIENT… FILE` and `skyspan import FILE`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from skyspan.cli.asyncs import in_session
from skyspan.cli.options import Globals, consent_option, verb
from skyspan.cli.views.document import show_document
from skyspan.model.error import UsageError

if TYPE_CHECKING:
    from skyspan.app.session import Session


@verb("export")
@click.argument("name")
@click.argument("file", metavar="FILE")
@click.option("--to", "to", multiple=True, metavar="RECIPIENT", help="age1…, an SSH public key, or a file of them.")
@click.option("--passphrase", is_flag=True, help="Lock it with a passphrase from standard input instead.")
def export(given: Globals, name: str, file: str, to: tuple[str, ...], passphrase: bool) -> None:
    """Write a deployment to FILE for another machine: its records, states, and the secrets it reads, as an age file."""
    from skyspan.app import export as use
    from skyspan.cli.prompts import ask_new_passphrase
    from skyspan.cli.views.problem import note

    if bool(to) == passphrase:
        raise UsageError("say for whom", hint="--to RECIPIENT (again for more), or --passphrase")
    recipients = use.recipients_of(to)
    secret = ask_new_passphrase("a passphrase for the file") if passphrase else None
    path = Path(file).absolute()
    document = in_session(given.settings(), lambda session: use.export(session, name, path, recipients, secret))
    if given.as_json:
        show_document(document)
    else:
        note(f"{name} with {len(document['stages'])} stages and {len(document['secrets'])} secrets is in {path}")
    note(f"warning: {name} is still recorded here too; change it from one of the two machines only")


@verb("import")
@click.argument("file", metavar="FILE")
@click.option(
    "--identity", "identities", multiple=True, metavar="FILE", help="An age identity or SSH key that opens it."
)
@click.option("--as", "name", metavar="NAME", help="Record it under another name.")
@click.option("--replace", is_flag=True, help="Give up what is recorded here under the same names.")
@consent_option
def import_(given: Globals, file: str, identities: tuple[str, ...], name: str | None, replace: bool, yes: bool) -> int:
    """Record a deployment that another machine exported. Nothing real is touched."""
    from skyspan.app import export as use
    from skyspan.cli.prompts import ask_passphrase
    from skyspan.cli.running import agree
    from skyspan.cli.views.problem import note
    from skyspan.secrets import age

    path = Path(file).absolute()
    needed = age.wants_passphrase(use.read(path))
    secret = ask_passphrase("the file's passphrase") if needed else None

    async def work(session: Session) -> dict[str, Any] | None:
        arriving = await use.open_export(session, path, [Path(item) for item in identities], secret, name)
        if arriving.replaces:
            which = ", ".join(arriving.replaces)
            if not replace:
                raise UsageError(f"this would replace what is here: {which}", hint="--replace gives that up")
            if not agree("replace it?", yes, lambda: note(f"replaced: {which}"), "give --yes with --replace"):
                return None
        return await use.take_in(session, arriving, path)

    document = in_session(given.settings(), work)
    if document is None:
        return 1
    if given.as_json:
        show_document(document)
        return 0
    note(f"{document['deployment']} is recorded here with {len(document['stages'])} stages")
    if not Path(document["folder"]).is_dir():
        note(f"its composition was in {document['folder']}: bring that folder here too, or name it with -f")
    note(f"see how it really stands: skyspan check {document['deployment']}")
    return 0
