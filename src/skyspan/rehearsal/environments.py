"""Programs with a Python environment of their own, put among a stand-in's files where it cannot see the original."""

from __future__ import annotations

import shutil
from pathlib import Path

_INTERPRETER = "/usr/bin/python3"
_NOT_NEEDED = shutil.ignore_patterns("pip", "pip-*", "setuptools", "setuptools-*")


def libraries_of(program: Path) -> Path | None:
    """Where the packages of the virtual environment are that `program` is a script of; None where it is none."""
    environment = program.parent.parent
    if not (environment / "pyvenv.cfg").is_file():
        return None
    return next(iter(sorted(environment.glob("lib/python3*/site-packages"))), None)


def interpreter_of(program: Path) -> Path:
    """What runs the scripts of that environment: often a link out of it."""
    return (program.parent / "python3").resolve()


def lay_environment(program: Path, name: str, folder: Path) -> None:
    """Copy the packages of `program` below `folder`, and a script that runs them with the machine's own Python.

    Packages with parts in C that were made for another Python fall back to what they have in Python.
    """
    libraries = libraries_of(program)
    assert libraries is not None, "only asked for scripts of an environment"
    place = Path(f"usr/local/lib/python3-{name}/site-packages")
    shutil.copytree(libraries, folder / place, ignore=_NOT_NEEDED)
    _, _, body = program.read_text().partition("\n")
    script = folder / "usr/local/bin" / name
    script.write_text(f"#!{_INTERPRETER}\nimport sys\n\nsys.path.insert(0, '/{place}')\n{body}")
    script.chmod(0o755)
