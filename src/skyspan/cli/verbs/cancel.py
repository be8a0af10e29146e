"""`skyspan cancel [NAME]`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from skyspan.cli.asyncs import in_session
from skyspan.cli.options import Globals, composition_option, deployment_name, verb
from skyspan.cli.views.document import show_document
from skyspan.model.error import NotFoundError

if TYPE_CHECKING:
    from skyspan.app.session import Session


@verb("cancel")
@click.argument("name", required=False)
@composition_option
def cancel(given: Globals, name: str | None, file: str | None) -> None:
    """Ask the running run to stop in order: tools get to save and unlock first.

    Of a run whose engine is gone, what still runs is stopped in the same way, and the run is ended."""
    from skyspan.cli.views.problem import note

    chosen = deployment_name(name, file)

    async def work(session: Session) -> tuple[str, bool]:
        from skyspan.app import queries
        from skyspan.app.alive import interrupted_run, live_holder
        from skyspan.app.recovery import cancel_interrupted

        record = await queries.find_deployment(session, chosen)
        holder = await live_holder(session, record.address)
        if holder is None and (run := await interrupted_run(session, record.address)) is not None:
            await cancel_interrupted(session, chosen, session.person)
            return run.id, True
        if holder is None:
            raise NotFoundError(f"nothing runs on {chosen}", hint=f"skyspan status {chosen}")
        await session.store.request_cancel(holder.run_id, session.settings.person)
        return holder.run_id, False

    run_id, over = in_session(given.settings(), work)
    if given.as_json:
        show_document({"deployment": chosen, "run": run_id, "cancel_requested": True, "ended": over})
    elif over:
        gone = f"ended run {run_id}, whose engine was gone: nothing of it runs any more"
        note(f"{gone}; skyspan status {chosen} shows it")
    else:
        note(f"asked run {run_id} to stop; skyspan logs {chosen} --follow shows it")
