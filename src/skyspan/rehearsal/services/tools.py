"""Puts the programs that services need among a stand-in's files, where it cannot see the originals.

A program may have a Python environment of its own, which is copied with it.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from skyspan.model.error import ToolMissingError
from skyspan.rehearsal.hosts.machine import OWN_FOLDERS
from skyspan.rehearsal.services import dockerhost, tailnet

_INTERPRETER = "/usr/bin/python3"
_NOT_NEEDED = shutil.ignore_patterns("pip", "pip-*", "setuptools", "setuptools-*")


def lay_tools(programs: tuple[str, ...], path: str, folder: Path, also: tuple[str, ...] = ()) -> None:
    """Put `programs`, found on `path`, below `folder` to where every stand-in's PATH leads; and `also` what is there.

    Raises ToolMissingError naming those that are not there.
    """
    found = {name: shutil.which(name, path=path) for name in (*programs, *also)}
    missing = [name for name in programs if found[name] is None]
    if missing:
        raise ToolMissingError(f"the rehearsal's services need {', '.join(missing)}", hint=_how_to_get(missing))
    target = folder / "usr/local/bin"
    target.mkdir(parents=True)
    for name, where in found.items():
        if where is None:
            continue
        real = Path(where).resolve()
        if real == Path("/usr/local/bin") / name:
            continue
        if libraries_of(real) is not None and not (_seen_inside(real) and _seen_inside(interpreter_of(real))):
            lay_environment(real, name, folder)
        elif _seen_inside(real):
            (target / name).symlink_to(real)
        else:
            shutil.copy(real, target / name)


def _how_to_get(missing: Sequence[str]) -> str:
    """What to type, in a checkout and elsewhere."""
    ways = []
    if set(missing) & {*tailnet.SERVER_PROGRAMS, *tailnet.CLIENT_PROGRAMS}:
        ways.append('in a checkout: tools/build tailnet && export PATH="$PWD/.tools/bin:$PATH"')
    if set(missing) & set(dockerhost.PROGRAMS):
        ways.append("for Docker: apt-get install docker.io")
    return "; ".join([*ways, "or put them on PATH (`skyspan doctor` looks for them)"])


def _seen_inside(file: Path) -> bool:
    """Whether a stand-in sees this machine's file: neither on another file system than the root's nor below a folder of
    which every stand-in has one of its own."""
    own = any(file.is_relative_to(Path("/") / folder) for folder, _ in OWN_FOLDERS)
    return not own and file.stat().st_dev == Path("/").stat().st_dev


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
