"""Programs with a Python environment of their own: laid among a stand-in's files so that they run there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from skyspan.rehearsal.services import lay_tools


def environment(folder: Path) -> Path:
    """A virtual environment with one package and one script, as pip makes them."""
    libraries = folder / "lib/python3.11/site-packages"
    (libraries / "greeting").mkdir(parents=True)
    (libraries / "greeting/__init__.py").write_text("def main():\n    print('hello')\n")
    (libraries / "pip").mkdir()
    (folder / "pyvenv.cfg").write_text("home = /nowhere\n")
    (folder / "bin").mkdir()
    (folder / "bin/python3").symlink_to(sys.executable)
    script = folder / "bin/greet"
    script.write_text("#!/nowhere/python3\nimport sys\nfrom greeting import main\nsys.exit(main())\n")
    script.chmod(0o755)
    return script


def test_a_script_whose_environment_a_stand_in_cannot_see_brings_it_along(tmp_path: Path) -> None:
    # What pytest gives is below /tmp, of which every stand-in has its own.
    script = environment(tmp_path / "venv")
    lay_tools((), str(script.parent), tmp_path / "tools", ("greet",))
    laid = tmp_path / "tools/usr/local/bin/greet"
    place = "/usr/local/lib/python3-greet/site-packages"
    assert laid.read_text().startswith("#!/usr/bin/python3\n")
    assert not (tmp_path / f"tools{place}" / "pip").exists()
    moved = laid.read_text().replace(f"'{place}'", f"'{tmp_path}/tools{place}'")
    done = subprocess.run([sys.executable, "-"], input=moved, capture_output=True, text=True)
    assert done.stdout == "hello\n", done.stderr


def test_a_program_that_is_no_such_script_is_laid_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/plain").write_text("#!/bin/sh\n")
    (tmp_path / "bin/plain").chmod(0o755)
    lay_tools((), str(tmp_path / "bin"), tmp_path / "tools", ("plain",))
    assert (tmp_path / "tools/usr/local/bin/plain").read_text() == "#!/bin/sh\n"
    assert not (tmp_path / "tools/usr/local/lib").exists()
