"""`skyspan list`."""

from __future__ import annotations

from skyspan.cli.asyncs import in_session
from skyspan.cli.options import Globals, verb
from skyspan.cli.views.document import show_document


@verb("list")
def list_deployments(given: Globals) -> None:
    """List the workspace's deployments."""
    from skyspan.app import queries
    from skyspan.cli.views.tables import show_deployments

    document = in_session(given.settings(), queries.deployments)
    (show_document if given.as_json else show_deployments)(document)
