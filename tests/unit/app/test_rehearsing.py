"""`skyspan rehearse --input`: another variant of a composition in the same stand-ins."""

from __future__ import annotations

from pathlib import Path

import pytest

from skyspan.app.load import load
from skyspan.app.rehearsing import Rehearsable, rehearsable
from skyspan.model.error import UsageError

COMPOSITION = """\
skyspan: 1
name: tiny
inputs: {size: {type: number, default: 1}, colour: {type: string, default: red}}
stages: {one: {uses: command, with: {run: "true"}}}
rehearsal:
  sites: {lab: {prefix: 203.0.113.0/24}}
  inputs: {size: 2, colour: blue}
"""


def given(folder: Path, **inputs: str) -> Rehearsable:
    (folder / "skyspan.yaml").write_text(COMPOSITION)
    return rehearsable(load(folder), {}, inputs)


def test_what_is_given_wins_over_what_the_stand_ins_give(tmp_path: Path) -> None:
    assert given(tmp_path).world.inputs == {"size": 2, "colour": "blue"}
    world = given(tmp_path, size="7").world
    assert world.inputs == {"size": "7", "colour": "blue"}
    assert world.model_dump(mode="json", exclude_unset=True)["inputs"] == {"size": "7", "colour": "blue"}


def test_an_input_that_the_composition_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no input 'colur'") as refused:
        given(tmp_path, colur="green")
    assert refused.value.hint == "did you mean colour?"


def test_a_value_of_another_type_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="input size: from --input"):
        given(tmp_path, size="many")
