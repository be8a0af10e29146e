"""`skyspan doctor [-f F]`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from skyspan.cli.asyncs import in_session
from skyspan.cli.options import Globals, verb
from skyspan.cli.views.document import show_document

if TYPE_CHECKING:
    from skyspan.app.session import Session


@verb("doctor")
@click.option("-f", "--file", "file", metavar="FILE|DIR", help="Look only for what this composition needs.")
def doctor(given: Globals, file: str | None) -> int:
    """Check this installation: home, store, keys, and the external tools with how to get them."""
    from skyspan.app.doctor import ERROR, examine
    from skyspan.cli.options import composition_path
    from skyspan.cli.views.tables import show_findings

    uses = None
    if file is not None:
        from skyspan.app.library import providers_of
        from skyspan.app.load import load
        from skyspan.cli.templates import templates_of

        loaded = load(composition_path(file))
        uses = providers_of(loaded.composition, templates_of(given, loaded))

    async def work(session: Session) -> dict[str, Any]:
        findings = await examine(session, uses)
        return {"findings": [finding.document() for finding in findings]}

    document = in_session(given.settings(), work)
    (show_document if given.as_json else show_findings)(document)
    return 1 if any(item["verdict"] == ERROR for item in document["findings"]) else 0
