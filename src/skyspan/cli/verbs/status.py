"""`skyspan status [NAME]`."""

from __future__ import annotations

import click

from skyspan.cli.asyncs import in_session
from skyspan.cli.options import Globals, composition_option, deployment_name, verb
from skyspan.cli.views.document import show_document


@verb("status")
@click.argument("name", required=False)
@composition_option
def status(given: Globals, name: str | None, file: str | None) -> None:
    """Show how a deployment stands: its last run, stage by stage."""
    from skyspan.app import queries
    from skyspan.cli.views.tables import show_status

    chosen = deployment_name(name, file)
    document = in_session(given.settings(), lambda session: queries.status(session, chosen))
    (show_document if given.as_json else show_status)(document)
