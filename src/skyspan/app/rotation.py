"""Replacing the keys under which everything is sealed, while others go on working."""

from __future__ import annotations

from collections.abc import Callable

from skyspan.app.audit import remember
from skyspan.app.documents import Document
from skyspan.app.session import Session
from skyspan.model.error import RefusedError
from skyspan.model.secret import Secret
from skyspan.secrets.locked import rotating
from skyspan.secrets.rotation import Rotation

_BATCH = 200
"""Values sealed anew in one transaction: others wait for it."""

Step = Callable[[str], None]


async def rotate_data(session: Session, step: Step = lambda _: None) -> Document:
    """Give the workspace a new key and seal everything anew under it; an interrupted rotation is gone on with.

    Raises RefusedError while an engine on another machine works in the workspace: it has no access to the new key."""
    workspace, upkeep, home = session.settings.workspace, session.upkeep, session.settings.home
    with rotating(home):
        await _refuse_others(session)
        rotation = Rotation(home, session.passphrase, step)
        await remember(session, "data key replaced")
        fresh = rotation.begin_data(workspace)
        # Whoever began to write before has sealed under the old key; all who begin now see the new one.
        await upkeep.settle()
        step("others settled")
        current, resealed = session.sealer.current(workspace), 0
        while found := await upkeep.reseal(workspace, current, _BATCH):
            resealed += found
            step("batch resealed")
        rotation.finish_data(workspace)
        await upkeep.compact()
    return {"workspace": workspace, "keys": "data", "resealed": resealed, "resumed": not fresh}


async def rotate_master(session: Session, new_passphrase: Secret | None, step: Step = lambda _: None) -> Document:
    """Give the home a new master key: one in the key file, or one that `new_passphrase` unlocks."""
    home = session.settings.home
    with rotating(home):
        await remember(session, "master key replaced")
        fresh = Rotation(home, session.passphrase, step).master(new_passphrase)
    return {"home": str(home), "keys": "master", "resumed": not fresh}


async def _refuse_others(session: Session) -> None:
    for lease in await session.upkeep.held(session.clock.now()):
        machine = lease.owner.rpartition("@")[2]
        if lease.deployment.workspace == session.settings.workspace and machine != session.settings.machine:
            raise RefusedError(
                f"{lease.owner} works on {lease.deployment} from another machine, which would not see the new key",
                hint=f"wait for run {lease.run_id}, rotate, then copy {session.settings.home / 'keys'} to {machine}",
            )
