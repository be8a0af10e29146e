"""Tools of the world's services, laid to where every stand-in finds them."""

from __future__ import annotations

from pathlib import Path

import pytest

from skyspan.model.error import ToolMissingError
from skyspan.rehearsal.services import lay_tools


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
