"""`skyspan prune [NAME]`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from skyspan.cli.asyncs import in_session
from skyspan.cli.options import Globals, consent_option, verb
from skyspan.cli.views.document import show_document

if TYPE_CHECKING:
    from skyspan.app.session import Session


@verb("prune")
@click.argument("name", required=False)
@click.option("--keep-runs", type=int, metavar="N", help="Keep the newest N runs.")
@click.option("--older-than", metavar="D", help="Remove runs begun longer ago: 30d, 12h, 8w.")
@consent_option
def prune(given: Globals, name: str | None, keep_runs: int | None, older_than: str | None, yes: bool) -> int:
    """Remove old runs with their events and logs, of one deployment or of all.

    What destroy, status and recovery need always stays: stages' records and state, the newest run, unfinished ones.
    """
    from skyspan.app import prune as use
    from skyspan.cli.running import agree
    from skyspan.cli.views.problem import note

    settings = given.settings()
    which = name or f"every deployment of workspace {settings.workspace}"

    async def work(session: Session) -> dict[str, Any] | None:
        retention = use.retention_of(session, keep_runs, older_than)
        if not agree("remove it?", yes, lambda: note(f"old history of {which} is removed"), "give --yes"):
            return None
        return await use.prune(session, name, retention)

    document = in_session(settings, work)
    if document is None:
        return 1
    if given.as_json:
        show_document(document)
        return 0
    for item in document["pruned"]:
        note(f"{item['deployment']}: {item['runs']} runs with {item['events']} events are removed")
    if not document["pruned"]:
        note("nothing is that old")
    return 0
