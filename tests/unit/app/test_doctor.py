"""The check-up says a thing once, and shows a tool's version whatever else the tool says."""

from __future__ import annotations

import stat
from pathlib import Path

from skyspan.app.doctor import examine, grouped
from skyspan.app.session import open_session
from skyspan.app.settings import read_settings
from skyspan.contracts.upkeep import Flaw


def test_what_is_wrong_with_many_values_is_said_once() -> None:
    flaws = [Flaw("sealed value", f"row {n}", "cannot be opened", "look at the key") for n in range(5)]
    one, other = grouped([*flaws, Flaw("row", "runs", "has no deployment", "")])
    assert one.found == "row 0, row 1, row 2 and 2 more: cannot be opened"
    assert one.hint == "look at the key"
    assert other.found == "runs: has no deployment"


async def test_the_version_is_found_behind_a_warning(tmp_path: Path) -> None:
    tool = tmp_path / "tofu"
    tool.write_text("#!/bin/sh\necho 'Warning: no configuration file'\necho 'OpenTofu v1.12.6'\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    settings = read_settings(str(tmp_path / "home"), environ={"SKYSPAN_TOOLS": str(tmp_path), "PATH": "/usr/bin:/bin"})
    async with open_session(settings) as session:
        findings = await examine(session, frozenset({"terraform"}))
    (tofu,) = (finding for finding in findings if finding.what == "tofu")
    assert tofu.found == f"OpenTofu v1.12.6 ({tool})"
