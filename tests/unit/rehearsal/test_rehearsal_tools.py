"""Tools of the world's services, laid to where every stand-in finds them, some with their Python environment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from skyspan.model.error import ToolMissingError
from skyspan.rehearsal.services.tools import lay_tools


def tool(folder: Path, name: str) -> Path:
    folder.mkdir()
    file = folder / name
    file.write_text("#!/bin/sh\n")
    file.chmod(0o755)
    return file


def test_a_tool_below_a_folder_that_stand_ins_do_not_see_is_copied(tmp_path: Path) -> None:
    assert tmp_path.is_relative_to("/tmp"), "every stand-in has a folder /tmp of its own"
    made = tool(tmp_path / "bin", "headscale")
    lay_tools(("headscale",), str(made.parent), tmp_path / "tools")
    laid = tmp_path / "tools/usr/local/bin/headscale"
    assert not laid.is_symlink()
    assert laid.read_bytes() == made.read_bytes()
    assert laid.stat().st_mode & 0o111


def test_a_tool_that_stand_ins_see_is_only_pointed_to(tmp_path: Path) -> None:
    lay_tools(("sh",), "/usr/bin", tmp_path / "tools")
    assert (tmp_path / "tools/usr/local/bin/sh").readlink() == Path("/usr/bin/sh").resolve()


def test_what_is_not_there_is_named_with_the_way_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ToolMissingError, match="headscale, tailscaled") as found:
        lay_tools(("headscale", "tailscaled"), str(tmp_path), tmp_path / "tools")
    assert "tools/build tailnet && export PATH" in found.value.hint


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
