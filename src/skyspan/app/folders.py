"""Where things lie in the home, made for their owner alone."""

from __future__ import annotations

from pathlib import Path

from skyspan.app.session import Session
from skyspan.model.error import StoreUnavailableError


def work_folder(session: Session, deployment: str) -> Path:
    """Where a deployment's stages keep their work folders."""
    return session.settings.home / "work" / session.settings.workspace / deployment


def make_private(folder: Path) -> Path:
    """`folder`, made where it is missing together with what is above it, for its owner alone.

    Raises StoreUnavailableError.
    """
    try:
        if not folder.is_dir():
            # `parents=True` would make those above by the umask, readable by others.
            for missing in reversed([place for place in (folder, *folder.parents) if not place.exists()]):
                missing.mkdir(exist_ok=True, mode=0o700)
            folder.mkdir(exist_ok=True)
    except OSError as error:
        raise StoreUnavailableError(
            f"cannot make {folder}: {error.strerror}",
            hint="check the disk and the permissions of the home, or name another one with --home",
        ) from error
    return folder
