"""`skyspan runs [NAME]` and `skyspan show RUN`: the history."""

from __future__ import annotations

import click

from skyspan.cli.asyncs import in_session
from skyspan.cli.options import Globals, composition_option, deployment_name, verb
from skyspan.cli.views.document import show_document


@verb("runs")
@click.argument("name", required=False)
@composition_option
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 10_000), help="How many, newest first.")
def runs(given: Globals, name: str | None, file: str | None, limit: int) -> None:
    """List a deployment's runs, newest first."""
    from skyspan.app import queries
    from skyspan.cli.views.tables import show_runs

    chosen = deployment_name(name, file)
    document = in_session(given.settings(), lambda session: queries.runs(session, chosen, limit))
    (show_document if given.as_json else show_runs)(document)


@verb("show")
@click.argument("run")
def show(given: Globals, run: str) -> None:
    """Show one run, stage by stage. RUN is its id, or the beginning of it."""
    from skyspan.app import queries
    from skyspan.cli.views.tables import show_run

    document = in_session(given.settings(), lambda session: queries.show(session, run))
    (show_document if given.as_json else show_run)(document)
