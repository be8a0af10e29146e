"""`skyspan resume [NAME]`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from skyspan.cli.asyncs import in_session
from skyspan.cli.options import Globals, composition_option, deployment_name, verb
from skyspan.cli.running import finish
from skyspan.model.lifecycle import Verb

if TYPE_CHECKING:
    from skyspan.app.runs import Result
    from skyspan.app.session import Session


@verb("resume")
@click.argument("name", required=False)
@composition_option
@click.option("--strict", is_flag=True, help="A degraded result exits with 3.")
def resume(given: Globals, name: str | None, file: str | None, strict: bool) -> int:
    """Finish a run that was interrupted: what still runs is picked up, what was done is not done again."""
    chosen = deployment_name(name, file)

    async def work(session: Session) -> Result:
        from skyspan.app import recovery
        from skyspan.app.runs import Watcher
        from skyspan.cli.views.problem import show_diagnostics
        from skyspan.cli.views.run import run_view

        with run_view(debug=given.debug) as view:
            return await recovery.resume(session, chosen, Watcher(view.event, view.line, show_diagnostics))

    result = in_session(given.settings(), work)
    return finish(given, result, Verb(result.document["run"]["verb"]), strict=strict)
