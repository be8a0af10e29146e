"""The workspace's templates of connections, for verbs that read compositions: found, and told when they changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from skyspan.cli.options import Globals

if TYPE_CHECKING:
    from skyspan.app.library import Library, LookUp
    from skyspan.app.load import Loaded
    from skyspan.app.prepare import Prepared
    from skyspan.app.session import Session
    from skyspan.model.address import DeploymentAddress


def workspace_templates(given: Globals) -> LookUp:
    """Looks templates up in the workspace's store, which is opened only then, and never made."""

    def look(names: frozenset[str]) -> Library:
        from skyspan.app.library import NO_LIBRARY, look_up

        settings = given.settings()
        if not names:
            return NO_LIBRARY
        if "://" not in settings.store and not Path(settings.store).exists():
            return NO_LIBRARY
        # Imported here, so that a composition without templates waits for neither asyncio nor a database.
        from skyspan.cli.asyncs import in_session

        return in_session(settings, lambda session: look_up(session.store, settings.workspace, names))

    return look


async def tell_of_changed_templates(session: Session, prepared: Prepared, address: DeploymentAddress) -> None:
    """Say which templates are not what the deployment was last brought up with: a reason why its stages change."""
    from skyspan.app.connections import changed
    from skyspan.cli.views.problem import note

    for name in await changed(session, prepared, address):
        note(f"connection {name} was changed since {address.name} was last brought up")


def templates_of(given: Globals, loaded: Loaded) -> Library:
    """The templates that a composition names and does not hold, for where it goes without its store."""
    from skyspan.app.library import wanted

    return workspace_templates(given)(wanted(loaded.composition))
