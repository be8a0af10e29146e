"""`skyspan audit [NAME]`."""

from __future__ import annotations

import click

from skyspan.cli.asyncs import in_session
from skyspan.cli.options import Globals, verb
from skyspan.cli.views.document import show_document


@verb("audit")
@click.argument("name", required=False)
@click.option("--limit", type=click.IntRange(1, 100_000), default=200, show_default=True, metavar="N")
def audit(given: Globals, name: str | None, limit: int) -> None:
    """Show who revealed or took what is secret, moved a store, or replaced keys, newest first."""
    from skyspan.app import audit as use
    from skyspan.cli.views.tables import show_accesses

    document = in_session(given.settings(), lambda session: use.audit(session, name, limit))
    (show_document if given.as_json else show_accesses)(document)
