"""Every folder here holds a composition and what is to come out of it: diagnostics, or pictures of its graph."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from skyspan.app.load import load_checked
from skyspan.model.error import CompositionError
from skyspan.planning.drawing import as_dot, as_mermaid, as_text
from skyspan.providers.registry import Registry

HERE = Path(__file__).parent
CASES = sorted(path.parent.name for path in HERE.glob("*/skyspan.yaml"))


def outcome() -> dict[str, str]:
    """File name -> content of everything that comes out of the composition in the current folder."""
    try:
        _, checked = load_checked(Path("skyspan.yaml"), Registry().spec_of)
    except CompositionError as error:
        return {"diagnostics.txt": "\n".join(item.render() for item in error.diagnostics) + "\n"}
    made = {"graph.txt": as_text(checked), "graph.mmd": as_mermaid(checked), "graph.dot": as_dot(checked)}
    if checked.diagnostics:
        made["diagnostics.txt"] = "\n".join(item.render() for item in checked.diagnostics) + "\n"
    return made


@pytest.mark.parametrize("case", CASES)
def test_a_composition_comes_out_as_expected(
    case: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(HERE / case)
    made = outcome()
    expected = {path.name for path in Path().iterdir() if path.name != "skyspan.yaml"}
    if request.config.getoption("--renew", default=False):
        for name in expected - set(made):
            Path(name).unlink()
        for name, content in made.items():
            Path(name).write_text(content, encoding="utf-8")
        return
    assert {name: Path(name).read_text(encoding="utf-8") for name in expected} == made, (
        f"if that is meant: python -m pytest tests{os.sep}golden --renew"
    )


def test_bad_compositions_are_here_for_every_error_a_file_can_have() -> None:
    bad = {case for case in CASES if case.startswith("bad_")}
    assert len(bad) >= 20, sorted(bad)
    for case in bad:
        assert "error: " in (HERE / case / "diagnostics.txt").read_text(encoding="utf-8"), case
