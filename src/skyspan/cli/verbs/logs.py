"""`skyspan logs [NAME]` and `skyspan events RUN`: what was said and what happened, also as it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from skyspan.cli.asyncs import in_session
from skyspan.cli.options import Globals, composition_option, deployment_name, verb
from skyspan.cli.views.document import show_line
from skyspan.model.error import NotFoundError

if TYPE_CHECKING:
    from skyspan.app.session import Session


@verb("logs")
@click.argument("name", required=False)
@composition_option
@click.option("--run", "run_id", metavar="RUN", help="A run's id; default: the latest run.")
@click.option("--stage", metavar="S", help="Only this stage.")
@click.option("--follow", is_flag=True, help="Go on until the run has ended.")
def logs(
    given: Globals, name: str | None, file: str | None, run_id: str | None, stage: str | None, follow: bool
) -> None:
    """Print a run's log: one stream, each line with its stage."""
    from skyspan.app import queries
    from skyspan.cli.views.tables import show_log_line

    async def print_log(session: Session) -> None:
        if run_id:
            run = await queries.find_run(session, run_id)
        else:
            record = await queries.find_deployment(session, deployment_name(name, file))
            latest = await queries.latest_run(session, record)
            if latest is None:
                raise NotFoundError(f"{record.address.name} has no run yet")
            run = latest
        async for line in queries.log_lines(session, run, stage, follow=follow):
            (show_line if given.as_json else show_log_line)(line)

    in_session(given.settings(), print_log)


@verb("events")
@click.argument("run")
@click.option("--follow", is_flag=True, help="Go on until the run has ended.")
def events(given: Globals, run: str, follow: bool) -> None:
    """Print a run's events in order. RUN is its id, or the beginning of it."""
    from skyspan.app import queries
    from skyspan.cli.views.tables import show_event

    async def print_events(session: Session) -> None:
        found = await queries.find_run(session, run)
        async for event in queries.run_events(session, found, follow=follow):
            (show_line if given.as_json else show_event)(event)

    in_session(given.settings(), print_events)
