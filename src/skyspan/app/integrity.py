"""Is what is stored still what was written, and are the keys as they must be?"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from skyspan.app.session import Session
from skyspan.contracts.upkeep import Flaw, Survey
from skyspan.model.error import SkyspanError
from skyspan.secrets.master_key import KEY_FILE, PASSPHRASE_FILE
from skyspan.secrets.rotation import Rotation

_OTHERS = 0o077


async def survey(session: Session) -> Survey:
    """Look through the whole store; a store that cannot be looked at is one flaw."""
    try:
        return await session.upkeep.survey()
    except SkyspanError as error:
        return Survey((Flaw("database", "store", f"{error.summary}: {error.detail}", error.hint),))


def key_flaws(session: Session) -> Iterator[Flaw]:
    """What is wrong with the key files, short of opening anything with them."""
    home = session.settings.home
    yield from _modes(home)
    try:
        if Rotation(home, session.passphrase).interrupted():
            yield Flaw(
                "keys", str(home), "a replacement of the master key was interrupted", "skyspan secrets rotate --master"
            )
    except SkyspanError as error:
        yield Flaw("keys", str(home), error.summary, error.hint)


def _modes(home: Path) -> Iterator[Flaw]:
    folder = home / "keys"
    places = [home / KEY_FILE, home / PASSPHRASE_FILE, folder, *(folder.iterdir() if folder.is_dir() else ())]
    for path in places:
        if path.exists() and (mode := stat.S_IMODE(path.stat().st_mode)) & _OTHERS:
            wanted = "700" if path.is_dir() else "600"
            yield Flaw("keys", str(path), f"may be read by others (mode {mode:04o})", f"chmod {wanted} {path}")
