"""`skyspan watch [NAME]`: the links of a deployment, kept up for as long as this runs."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

import click

from skyspan.cli.asyncs import in_session
from skyspan.cli.options import Globals, composition_option, deployment_name, verb
from skyspan.cli.views.document import show_line

if TYPE_CHECKING:
    from skyspan.app.session import Session


@verb("watch")
@click.argument("name", required=False)
@composition_option
@click.option("--stage", "stages", multiple=True, metavar="S", help="Only this link; may be repeated.")
@click.option("--no-repair", is_flag=True, help="Only look on.")
@click.option("--for", "for_s", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="End after that.")
def watch(
    given: Globals,
    name: str | None,
    file: str | None,
    stages: tuple[str, ...],
    no_repair: bool,
    for_s: float | None,
) -> None:
    """Probe every link each second, say what is wrong with one that is down, and repair it; until Ctrl-C.

    Repairs are runs of their own (`skyspan runs`): nothing is repaired while somebody else is at work.
    """
    from skyspan.app import guard, watching
    from skyspan.cli.views.watch import show_happening, show_summary

    chosen = deployment_name(name, file)
    options = guard.Options(stages, repair=not no_repair, for_s=for_s)
    tell = show_line if given.as_json else show_happening

    async def work(session: Session) -> dict[str, Any]:
        over = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            # What was measured until then is told; a repair that goes on is ended in order.
            asyncio.get_running_loop().add_signal_handler(number, over.set)
        return await watching.watch(session, chosen, options, tell, over)

    (show_line if given.as_json else show_summary)(in_session(given.settings(), work))
