"""`skyspan outputs [NAME]` and `skyspan links [NAME]`."""

from __future__ import annotations

import click

from skyspan.cli.asyncs import in_session
from skyspan.cli.options import Globals, composition_option, deployment_name, verb
from skyspan.cli.views.document import show_document


@verb("outputs")
@click.argument("name", required=False)
@composition_option
@click.option("--stage", metavar="S", help="Only this stage.")
@click.option("--reveal", is_flag=True, help="Show sensitive values.")
def outputs(given: Globals, name: str | None, file: str | None, stage: str | None, reveal: bool) -> None:
    """Show what the stages gave; sensitive values are masked unless revealed."""
    from skyspan.app import queries
    from skyspan.cli.views.tables import show_outputs

    chosen = deployment_name(name, file)
    document = in_session(given.settings(), lambda session: queries.outputs(session, chosen, stage, reveal=reveal))
    (show_document if given.as_json else show_outputs)(document)


@verb("links")
@click.argument("name", required=False)
@composition_option
@click.option("--diagnose", is_flag=True, help="Look at each link and say what is wrong with it.")
def links(given: Globals, name: str | None, file: str | None, diagnose: bool) -> None:
    """Show the links between hosts, and where to look at each stage's resources."""
    from skyspan.app import queries
    from skyspan.cli.views.tables import show_links

    chosen = deployment_name(name, file)
    if diagnose:
        _diagnose(given, chosen)
        return
    document = in_session(given.settings(), lambda session: queries.links(session, chosen))
    (show_document if given.as_json else show_links)(document)


def _diagnose(given: Globals, name: str) -> None:
    from skyspan.app import watching
    from skyspan.cli.views.watch import show_findings

    found = watching.findings_document(in_session(given.settings(), lambda session: watching.diagnose(session, name)))
    if given.as_json:
        show_document({"deployment": name, "links": found})
    else:
        show_findings(found)
