"""`skyspan init`."""

from __future__ import annotations

from pathlib import Path

import click

from skyspan.cli.options import Globals, verb
from skyspan.cli.views.document import show_document
from skyspan.model.error import UsageError


@verb("init")
@click.argument("folder", required=False, default=".")
def init(given: Globals, folder: str) -> None:
    """Write a commented skyspan.yaml that runs as it is, into FOLDER (default: here)."""
    from skyspan.app.load import FILE_NAME
    from skyspan.app.starter import starter
    from skyspan.cli.views.problem import note

    path = Path(folder) / FILE_NAME
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(starter(path.absolute().parent.name))
    except FileExistsError as error:
        raise UsageError(f"{path} exists already; it was left alone") from error
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    if given.as_json:
        show_document({"file": str(path)})
    else:
        note(f"wrote {path}\n  next: skyspan plan -f {folder}\n        skyspan up -f {folder}")
